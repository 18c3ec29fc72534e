"""Run an artifact over many texts, at a shape that gives the figures of the device."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact, ArtifactCard
from pocketbert.data.tokenize import TextEncoder
from pocketbert.runtimes.base import Runtime

BATCH_ROWS = 32


def row_length(card: ArtifactCard, sequence_length: int) -> int:
    """Tokens a row is cut to: its static length, else `sequence_length`, and no more than the model was trained on."""
    return min(card.sequence_length or sequence_length, card.max_length)


def depends_on_shape(card: ArtifactCard) -> bool:
    """Whether a row's logits depend on its batch and padding.

    Dynamic quantization in ONNX Runtime takes one activation scale a tensor, over all rows and padded
    positions of the batch; float models mask the padding exactly.
    """
    return card.format == "onnx" and card.precision == "int8"


def run_texts(artifact: Artifact, runtime: Runtime, texts: list[str], sequence_length: int) -> NDArray[np.float32]:
    """Logits, float32 [rows, classes], in the order of the texts.

    A model whose logits depend on the shape runs at [1, sequence_length]; LiteRT runs at its static shape. Others
    run in batches of rows of similar length, padded to the longest: the same logits at a fraction of the time.
    """
    encoder = TextEncoder(artifact.folder)
    length = row_length(artifact.card, sequence_length)
    fixed = depends_on_shape(artifact.card)
    logits: NDArray[np.float32] | None = None
    for rows in _batches(encoder, texts, length, 1 if fixed else BATCH_ROWS):
        batch = encoder.encode([texts[row] for row in rows], length, pad_to=length if fixed else None)
        result = runtime.run(batch)
        if logits is None:
            logits = np.empty((len(texts), result.shape[1]), dtype=np.float32)
        logits[rows] = result
    if logits is None:
        raise ValueError("no texts")
    return logits


def _batches(encoder: TextEncoder, texts: list[str], length: int, size: int) -> Iterator[NDArray[np.intp]]:
    """Indices of rows, the shortest first, `size` at a time."""
    lengths = np.array([len(ids) for ids in encoder.encode_rows(texts, length)])
    order = lengths.argsort(kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]

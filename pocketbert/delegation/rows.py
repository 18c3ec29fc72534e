"""Rows for any .tflite file: real ones of an artifact's data set, else made up from what the file says."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.data.tokenize import TextEncoder
from pocketbert.delegation.operators import Operator, read_operators
from pocketbert.errors import CheckpointError
from pocketbert.inspection.tflite_file import read_tflite
from pocketbert.runtimes.base import TensorSpec
from pocketbert.runtimes.host_lookup import with_host_inputs

MADE_UP = 6
_LOOKUPS = ("GATHER", "EMBEDDING_LOOKUP")


def made_up_rows(path: Path) -> dict[str, NDArray[np.generic]]:
    """Rows of 1 to all tokens: ids within the largest table, masks to match, token types of 0 and 1, normal floats.

    Inputs go by the names of the first signature, without one by those of their tensors; where the batch is not 1, a
    row is a whole input. Raises CheckpointError for an input that is no number.
    """
    model = read_tflite(path)
    inputs = model.signatures[0].inputs if model.signatures else model.inputs
    for spec in inputs:
        if not spec.dtype.startswith(("float", "int", "uint", "bool")):
            raise CheckpointError(
                f"input {spec.name!r} of {path} is {spec.dtype}: no rows can be made up for it",
                "Ask the rules alone: --predict.",
            )
    random = np.random.default_rng(0)
    tables = [max(t.shape[0] for t in op.inputs if t.constant) for op in read_operators(path) if _is_lookup(op)]
    vocabulary = max(tables, default=2)
    return {spec.name: _values(spec, vocabulary, random) for spec in inputs}


def real_rows(artifact: Artifact, texts: Sequence[str], count: int) -> dict[str, NDArray[np.generic]]:
    """`count` texts from the shortest to the longest, in the artifact's own tokens, padded to its static length.

    Token type 1 stands on the second half of every other row: real rows of single texts have none.
    """
    encoder, card = TextEncoder(artifact.folder), artifact.card
    length = card.sequence_length or card.max_length
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    chosen = [texts[order[i]] for i in np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)]
    rows = encoder.encode(chosen, min(card.max_length, length), pad_to=length)
    for types, mask in zip(rows["token_type_ids"][1::2], rows["attention_mask"][1::2], strict=True):
        types[int(mask.sum()) // 2 : int(mask.sum())] = 1
    return dict(with_host_inputs(artifact.model_path, rows))


def _values(spec: TensorSpec, vocabulary: int, random: np.random.Generator) -> NDArray[np.generic]:
    shape = (MADE_UP, *[size or 1 for size in (spec.shape[1:] if spec.shape[:1] in ((1,), (None,)) else spec.shape)])
    lengths = np.linspace(1, shape[-1], MADE_UP).astype(int)
    real = np.broadcast_to(np.arange(shape[-1]) < lengths.reshape(-1, *[1] * (len(shape) - 1)), shape)
    if "mask" in spec.name:
        values: NDArray[np.generic] = real.copy()
    elif spec.dtype.startswith("float"):
        values = random.normal(size=shape)
    else:
        types = "type" in spec.name or "segment" in spec.name
        values = real * random.integers(0, 2 if types else vocabulary, shape)
    return values.astype(spec.dtype)


def _is_lookup(operator: Operator) -> bool:
    return operator.kind in _LOOKUPS and any(t.constant and t.shape for t in operator.inputs)

"""Training rows that static quantization sees."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.dataset import Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.params import CalibrationParams


@dataclass(frozen=True)
class CalibrationRows:
    """Tokenized rows, int32 [rows, length] each, and where they come from."""

    indices: NDArray[np.int64]
    inputs: dict[str, NDArray[np.int32]]
    # SHA-256 of the texts, in order.
    digest: str

    def __len__(self) -> int:
        return len(self.indices)


def stratified_rows(targets: NDArray[np.number], rows: int, seed: int) -> NDArray[np.int64]:
    """Sorted indices of `rows` rows (or all, if fewer), each class with its share rounded down or up.

    Systematic sampling from the rows sorted by class, shuffled within a class. A combination of labels counts
    as a class of its own in a multi-label task.
    """
    total = len(targets)
    if rows >= total:
        return np.arange(total)
    shuffled = np.random.default_rng(seed).permutation(total)
    _, classes = np.unique(targets, axis=0, return_inverse=True)
    by_class = shuffled[np.argsort(classes.reshape(-1)[shuffled], kind="stable")]
    positions = (np.arange(rows) + 0.5) * total / rows
    return np.sort(by_class[positions.astype(np.int64)])


def draw_rows(params: CalibrationParams, train: Split, folder: Path, length: int) -> CalibrationRows:
    """Draw and tokenize rows with the tokenizer of an artifact's `folder`, padded to `length`."""
    indices = stratified_rows(train.targets, params.rows, params.seed)
    texts = [train.texts[index] for index in indices]
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    return CalibrationRows(indices, TextEncoder(folder).encode(texts, length, pad_to=length), digest)

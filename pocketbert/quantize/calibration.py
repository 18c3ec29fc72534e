"""Training rows that static quantization sees."""

import hashlib
import json
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import CheckpointError, ProofError
from pocketbert.params import CalibrationParams
from pocketbert.quantize.ranges import Range

# Beside the model: the recipe as applied.
RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class CalibrationRows:
    """Tokenized rows, int32 [rows, length] each (or what the host made of them), and where they come from."""

    indices: NDArray[np.int64]
    inputs: dict[str, NDArray[Any]]
    # SHA-256 of the texts, in order.
    digest: str
    # Percentile of an activation's values within which its range lies; None: the whole range counts.
    clip: float | None = None
    # The study of sensitivity quantizes one model many times.
    _measured: dict[Hashable, dict[str, Range]] = field(default_factory=dict, repr=False, compare=False)

    def measured_once(self, what: Hashable, measure: Callable[[], dict[str, Range]]) -> dict[str, Range]:
        """What `measure` finds on these rows; asked again for the same thing, what it found then."""
        if what not in self._measured:
            self._measured[what] = measure()
        return self._measured[what]

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
    texts = _texts(train, params.rows, params.seed)
    inputs = TextEncoder(folder).encode(texts, length, pad_to=length)
    return CalibrationRows(indices, inputs, _digest(texts), params.clip)


def check_calibration(artifacts: Iterable[Artifact], train: Split) -> None:
    """Raise ProofError for an artifact that was calibrated on other rows than `train` gives now.

    Goes by recipe.json; an artifact without one, or that saw no rows, passes. Raises CheckpointError where it is
    damaged.
    """
    for artifact in artifacts:
        path = artifact.folder / RECIPE_FILE
        if not path.is_file():
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))["calibration"]
            stale = record is not None and record["sha256"] != _digest(_texts(train, record["rows"], record["seed"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged: {error!r}", "Build it again: `dvc repro`.") from error
        if stale:
            raise ProofError(
                f"{artifact.name} was calibrated on rows that the training data no longer gives (sha256 in {path})",
                f"Build it again: `dvc repro --force --single-item quantize@{artifact.name}`.",
            )


def _texts(train: Split, rows: int, seed: int) -> list[str]:
    return [train.texts[index] for index in stratified_rows(train.targets, rows, seed)]


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()

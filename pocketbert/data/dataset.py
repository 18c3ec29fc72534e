"""The prepared data set on disk: {train,valid,test}.parquet and labels.json in one folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pocketbert.errors import DataError

ProblemType = Literal["single_label", "multi_label"]
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class LabelSet:
    """The classes, in the order of the logits."""

    names: tuple[str, ...]
    problem_type: ProblemType = "single_label"

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Split:
    """Texts and targets of one split.

    `targets` is int64 [rows] of class indices, or float32 [rows, classes] of 0/1 for a multi-label task.
    """

    texts: list[str]
    targets: NDArray[np.int64] | NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.texts)


def write_labels(labels: LabelSet, folder: Path) -> None:
    """Write labels.json into `folder`."""
    document = {"labels": list(labels.names), "problem_type": labels.problem_type}
    (folder / "labels.json").write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")


def read_labels(folder: Path) -> LabelSet:
    """Read labels.json from `folder` (a prepared data set or an artifact); raises DataError."""
    path = folder / "labels.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return LabelSet(tuple(document["labels"]), document["problem_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}", "Run `dvc repro prepare`.") from error


def write_split(split: Split, path: Path) -> None:
    """Write a split as Parquet with the columns `text` and `label` (an index, or a list of them)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if split.targets.ndim == 1:
        label: list[object] = split.targets.tolist()
    else:
        label = [np.flatnonzero(row).tolist() for row in split.targets]
    kind = pa.int64() if split.targets.ndim == 1 else pa.list_(pa.int64())
    table = pa.table({"text": pa.array(split.texts, pa.string()), "label": pa.array(label, kind)})
    pq.write_table(table, path)


def read_split(path: Path, labels: LabelSet) -> Split:
    """Read a split written by `write_split`; raises DataError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        texts, label = table["text"].to_pylist(), table["label"].to_pylist()
    except (OSError, pa.ArrowException, KeyError) as error:
        raise DataError(f"{path} cannot be read: {error}", "Run `dvc repro prepare augment`.") from error
    if labels.problem_type == "single_label":
        return Split(texts, np.asarray(label, dtype=np.int64))
    targets = np.zeros((len(texts), len(labels)), dtype=np.float32)
    for row, indices in enumerate(label):
        targets[row, indices] = 1.0
    return Split(texts, targets)

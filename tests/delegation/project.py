"""A project's folder as the stage sees it: devices.yaml and prepared data."""

from pathlib import Path

import numpy as np

from pocketbert.data.dataset import LabelSet, Split, write_labels, write_split
from tests.export.trained import CLASSES, make_texts


def write_project(root: Path, *, software_gpu: bool | None) -> Path:
    """devices.yaml, with a `gpu` entry unless `software_gpu` is None, and data/prepared of the toy task."""
    prepared = root / "data/prepared"
    prepared.mkdir(parents=True)
    gpu = "" if software_gpu is None else f", gpu: {{driver: vulkan, software_gpu: {str(software_gpu).lower()}}}"
    (root / "devices.yaml").write_text(f"devices:\n  local: {{kind: local{gpu}}}\n")
    write_labels(LabelSet(tuple(f"class {i}" for i in range(CLASSES))), prepared)
    texts, targets = make_texts(24, seed=99)
    write_split(Split(texts, np.asarray(targets)), prepared / "valid.parquet")
    return prepared

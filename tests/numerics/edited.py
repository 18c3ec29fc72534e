"""Copies of exported files with edited constants, found by their bytes: both formats keep them as they are."""

import shutil
from pathlib import Path

import numpy as np

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.numerics.fusion_bases import copy_bases
from tests.export.trained import exported


def bert(name: str) -> np.ndarray:
    """A parameter of the trained toy BERT."""
    return load_classifier(exported("bert").classifier).state_dict()[name].numpy()


def with_constant(source: Path, folder: Path, old: np.ndarray, new: np.ndarray) -> Artifact:
    """A copy of an artifact in which every constant `old` is `new`."""
    shutil.copytree(source, folder)
    artifact = read_artifact(folder)
    content = artifact.model_path.read_bytes()
    before, after = (np.asarray(v, dtype=np.float32).tobytes() for v in (old, new))
    assert before in content
    artifact.model_path.write_bytes(content.replace(before, after))
    copy_bases(source / artifact.model_path.name, artifact.model_path)
    return artifact


def with_mask(source: Path, folder: Path, value: float) -> Artifact:
    """A copy with another mask constant."""
    return with_constant(source, folder, np.float32(-1e4), np.float32(value))

"""A tiny trained student in all formats, its quantized artifacts, and a toy test split."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.data.dataset import Split
from pocketbert.params import QuantizeParams
from tests.devices.conftest import LABELS, toy_targets, toy_texts, train_classifier

LENGTH = 16
VARIANTS = {
    "onnx-fp16": {"format": "onnx", "recipe": "fp16"},
    "onnx-dynamic_int8": {"format": "onnx", "recipe": "dynamic_int8"},
    "onnx-static_int8": {"format": "onnx", "recipe": "static_int8"},
    "onnx-weight_only_int8": {"format": "onnx", "recipe": "weight_only_int8"},
    "onnx-weight_only_int4": {"format": "onnx", "recipe": "weight_only_int4"},
    "tflite-fp16": {"format": "tflite", "recipe": "fp16"},
    "tflite-weight_only_wi8_afp32": {"format": "tflite", "recipe": "weight_only_wi8_afp32"},
    "tflite-weight_only_wi4_afp32": {"format": "tflite", "recipe": "weight_only_wi4_afp32"},
    "tflite-dynamic_wi8_afp32": {"format": "tflite", "recipe": "dynamic_wi8_afp32"},
    "tflite-dynamic_wi4_afp32": {"format": "tflite", "recipe": "dynamic_wi4_afp32"},
    "tflite-static_wi8_ai8": {"format": "tflite", "recipe": "static_wi8_ai8"},
}


@pytest.fixture(scope="session")
def toy_split() -> Split:
    return Split(toy_texts(), np.array(toy_targets()))


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return train_classifier(2, tmp_path_factory.mktemp("runtimes") / "student", "student")


@pytest.fixture(scope="session")
def teacher(student: Artifact) -> Artifact:
    return copy_artifact(student, student.folder.parent / "teacher", name="teacher")


@pytest.fixture(scope="session")
def onnx(student: Artifact) -> Artifact:
    from pocketbert.export.onnx import export_onnx
    from pocketbert.params import ExportOnnxParams

    folder = student.folder.parent / "onnx"
    export_onnx(ExportOnnxParams(), student.folder, folder)
    return read_artifact(folder)


@pytest.fixture(scope="session")
def tflite(student: Artifact) -> Artifact:
    from pocketbert.export.tflite import export_tflite
    from pocketbert.params import ExportTfliteParams

    folder = student.folder.parent / "tflite"
    export_tflite(ExportTfliteParams(sequence_length=LENGTH), student.folder, folder)
    return read_artifact(folder)


@pytest.fixture(scope="session")
def quantized(onnx: Artifact, tflite: Artifact, toy_split: Split) -> dict[str, Artifact]:
    from pocketbert.quantize.run import quantize_artifact

    params = QuantizeParams.model_validate({"calibration": {"rows": 32, "seed": 1}, "recipes": VARIANTS})
    sources = {"onnx": onnx.folder, "tflite": tflite.folder}
    for variant in VARIANTS:
        quantize_artifact(params, variant, sources, toy_split, onnx.folder.parent / variant)
    return {variant: read_artifact(onnx.folder.parent / variant) for variant in VARIANTS}


@pytest.fixture(scope="session")
def every_artifact(
    teacher: Artifact, student: Artifact, onnx: Artifact, tflite: Artifact, quantized: dict[str, Artifact]
) -> list[Artifact]:
    return [teacher, student, onnx, tflite, *quantized.values()]


def copy_artifact(artifact: Artifact, folder: Path, problem_type: str | None = None, **card: object) -> Artifact:
    """A copy with another card, or as if the classes were those of a multi-label task."""
    shutil.copytree(artifact.folder, folder)
    (folder / "artifact.json").write_text(json.dumps(artifact.card.model_dump() | card))
    if problem_type:
        (folder / "labels.json").write_text(json.dumps({"labels": LABELS.names, "problem_type": problem_type}))
    return read_artifact(folder)

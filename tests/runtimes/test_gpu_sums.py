"""fp16 with sums in fp32, by LiteRT's C interface: the same answers as by the Python interface, and closer to fp32."""

from pathlib import Path

import numpy as np
import pytest

from pocketbert.artifacts import read_artifact
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import DeviceError
from pocketbert.runtimes.base import Precision
from pocketbert.runtimes.isolated import run_isolated
from tests.delegation.conftest import gpu  # noqa: F401 (a fixture)
from tests.export.trained import exported, make_texts

PRECISIONS: tuple[Precision, ...] = ("fp16", "fp16_sums_fp32")


def test_sums_in_fp32_are_closer_to_fp32(gpu: str) -> None:  # noqa: F811
    folder = exported("mobilebert").tflite
    artifact = read_artifact(folder)
    length = artifact.card.sequence_length or 0
    rows = TextEncoder(folder).encode(make_texts(6, seed=4)[0], length, pad_to=length)
    inputs = {name: values.astype(np.int32) for name, values in rows.items()}
    expected = run_isolated(artifact.model_path, inputs, accelerator="cpu").outputs
    runs = {
        p: run_isolated(artifact.model_path, inputs, accelerator="gpu", precision=p, timeout_s=300) for p in PRECISIONS
    }
    placement = runs["fp16_sums_fp32"].placement
    assert placement.adapter == runs["fp16"].placement.adapter
    assert placement.delegated == placement.total and placement.partitions == 1
    off = {p: float(np.abs(run.outputs - expected).mean()) for p, run in runs.items()}
    assert 0 < off["fp16_sums_fp32"] < 0.8 * off["fp16"]


def test_a_file_that_is_none_is_an_error(gpu: str, tmp_path: Path) -> None:  # noqa: F811
    broken = tmp_path / "model.tflite"
    broken.write_bytes(b"TFL3" * 64)
    with pytest.raises(DeviceError):
        run_isolated(broken, {"x": np.zeros((1, 4), np.int32)}, accelerator="gpu", precision="fp16_sums_fp32")

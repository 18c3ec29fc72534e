"""fp16 with sums in fp32, by LiteRT's C interface: the same answers as by the Python interface, and closer to fp32."""

from pathlib import Path

import numpy as np
import pytest

from pocketbert.artifacts import read_artifact
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import DeviceError
from pocketbert.numerics.logits import LogitComparison, compare_logits
from pocketbert.runtimes.base import REL_DIFF_MAX, Precision
from pocketbert.runtimes.isolated import run_isolated
from tests.delegation.conftest import gpu  # noqa: F401 (a fixture)
from tests.export.trained import MAIN_FAMILIES, exported, make_texts


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_sums_in_fp32_keep_one_percent(gpu: str, family: str) -> None:  # noqa: F811
    folder = exported(family).tflite
    artifact = read_artifact(folder)
    length = artifact.card.sequence_length or 0
    rows = TextEncoder(folder).encode(make_texts(6, seed=4)[0], length, pad_to=length)
    inputs = {name: values.astype(np.int32) for name, values in rows.items()}

    def off(precision: Precision) -> LogitComparison:
        run = run_isolated(artifact.model_path, inputs, accelerator="gpu", precision=precision, timeout_s=300)
        assert run.placement.adapter == gpu
        assert run.placement.delegated == run.placement.total and run.placement.partitions == 1
        return compare_logits(expected, run.outputs.reshape(expected.shape))

    expected = run_isolated(artifact.model_path, inputs, accelerator="cpu").outputs.reshape(6, -1)
    found = off("fp16_sums_fp32")
    assert 0 < found.max_rel_diff < REL_DIFF_MAX["fp16_sums_fp32"]
    if family == "mobilebert":
        assert found.mean_abs_diff < 0.8 * off("fp16").mean_abs_diff


def test_a_file_that_is_none_is_an_error(gpu: str, tmp_path: Path) -> None:  # noqa: F811
    broken = tmp_path / "model.tflite"
    broken.write_bytes(b"TFL3" * 64)
    with pytest.raises(DeviceError):
        run_isolated(broken, {"x": np.zeros((1, 4), np.int32)}, accelerator="gpu", precision="fp16_sums_fp32")

"""Real runs on a Vulkan driver (a software one will do): placement, refusals, and what is computed."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pocketbert.cli import app
from pocketbert.delegation.analyze import Delegation, analyze, find_profile, predict_file
from pocketbert.devices.agent.litert_log import NoGpu, read_placement
from pocketbert.errors import CheckpointError, DeviceError, ParamsError
from pocketbert.export.token_axis import restore_token_axis
from pocketbert.runtimes.base import Precision
from pocketbert.runtimes.isolated import run_isolated
from pocketbert.runtimes.litert_log import NoGpuError
from tests.delegation.graphs import WIDTH, convert, rows_beside_a_constant
from tests.delegation.profiled import profiled
from tests.export.trained import MAIN_FAMILIES, exported

LITERT = find_profile("litert-2.3")


def ask(path: Path, precision: Precision = "fp32") -> Delegation:
    return analyze(path, LITERT, precision=precision)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("stock"))


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_our_exports_are_on_the_gpu_whole_and_right(gpu: str, family: str) -> None:
    found = ask(exported(family).tflite / "model.tflite")
    (measured,) = found.measurements
    assert found.whole and found.agreed and found.prediction.whole
    assert measured.placement is not None and measured.placement.adapter == gpu
    assert measured.delegated == measured.placement.total == found.prediction.total
    assert measured.rel_diff is not None and measured.rel_diff < 1e-5


def test_fp16_is_near(gpu: str) -> None:
    path = exported("bert").tflite / "model.tflite"
    (fp32,), (fp16,) = ask(path).measurements, ask(path, "fp16").measurements
    assert fp16.right
    # Another arithmetic, not the same one under another name.
    assert fp16.rel_diff is not None and fp32.rel_diff is not None
    assert fp16.rel_diff > 10 * fp32.rel_diff


def test_a_stock_graph_is_refused_in_parts_with_reasons(gpu: str, stock: Path) -> None:
    found = ask(stock)
    (measured,) = found.measurements
    assert not found.whole
    assert found.agreed, "rules and runtime differ"
    assert measured.right
    reasons = {finding.operator: finding.reason for finding in found.prediction.refused}
    assert reasons["GATHER"] == "indices that are not one-dimensional"
    assert reasons["STRIDED_SLICE"] == "a slice that drops an axis"
    assert reasons["CAST"] == "a tensor of a type that the delegate does not take"
    assert measured.placement is not None
    said = "\n".join(measured.placement.refused)
    assert "GATHER: Only support 1D indices" in said
    assert "shrink_axis_mask" in said


def test_the_stock_profile_is_not_whole_and_the_embeddings_profile_is(gpu: str) -> None:
    found = ask(profiled("bert", "stock"))
    assert found.agreed and not found.whole
    assert {finding.operator for finding in found.prediction.refused} == {"GATHER"}
    assert {finding.layer for finding in found.prediction.refused} == {"embeddings"}
    assert 0 < found.measurements[0].delegated < found.prediction.total
    assert ask(profiled("bert", "embeddings")).whole


def test_a_whole_and_wrong_model_is_not_passed(gpu: str, tmp_path: Path) -> None:
    """A sum with constant rows as TensorFlow converts it, without our rewrite: delegated whole, and wrong."""
    path = tmp_path / "model.tflite"
    converted = rows_beside_a_constant()
    path.write_bytes(converted)
    found = ask(path)
    (measured,) = found.measurements
    assert measured.placement is not None and measured.placement.delegated == measured.placement.total
    assert measured.right is False and not found.whole
    assert [finding.operator for finding in found.prediction.hazards] == ["ADD"]
    rewritten, count = restore_token_axis(converted)
    assert count == 1
    path.write_bytes(rewritten)
    assert ask(path).whole


def test_the_command(gpu: str, stock: Path) -> None:
    run = CliRunner().invoke
    whole = run(app, ["delegation", str(exported("bert").tflite)])
    assert whole.exit_code == 0, whole.output
    assert "whole" in whole.output.splitlines()[-1] and "software" in whole.output
    parts = run(app, ["delegation", str(stock), "--json"])
    assert parts.exit_code == 1
    document = json.loads(parts.stdout)
    (measured,) = document["measured"]
    assert measured["delegated"] == document["predicted"]["delegated"] < document["predicted"]["total"]


def test_rules_alone_need_no_gpu(stock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", "/nonexistent.json")
    alone = CliRunner().invoke(app, ["delegation", str(stock), "--predict"])
    assert alone.exit_code == 1
    assert "GATHER #" in alone.stdout and "not asked" in alone.stdout
    document = json.loads(CliRunner().invoke(app, ["delegation", str(stock), "--predict", "--json"]).stdout)
    assert document["measured"] is None and document["agreed"] is None


def test_a_silent_runtime_is_no_gpu() -> None:
    with pytest.raises(NoGpu, match="no GPU"):
        read_placement("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n", 3)


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "model.tflite"
    broken.write_bytes((exported("bert").tflite / "model.tflite").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="damaged"):
        predict_file(broken, LITERT)
    result = CliRunner().invoke(app, ["delegation", str(tmp_path / "gone.tflite")])
    assert isinstance(result.exception, ParamsError)
    unknown = CliRunner().invoke(app, ["delegation", str(broken), "--profile", "nnapi"])
    assert "tflite-android-2.x" in str(unknown.exception)


def test_a_worker_that_fails_for_another_reason_is_not_called_a_missing_gpu(tmp_path: Path) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(b"no model")
    with pytest.raises(DeviceError) as raised:
        run_isolated(model, {"x": np.ones((1, WIDTH), np.float32)}, accelerator="gpu")
    assert not isinstance(raised.value, NoGpuError)

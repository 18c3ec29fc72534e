"""Real runs on a Vulkan driver (a software one will do): placement, refusals, and what is computed."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pocketbert.cli import app
from pocketbert.delegation.analyze import analyze, predict
from pocketbert.delegation.operators import read_operators
from pocketbert.errors import CheckpointError, DeviceError, ParamsError
from pocketbert.export.tflite import trace
from pocketbert.export.token_axis import restore_token_axis
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.runtimes.litert_gpu import read_placement, run_on_gpu
from tests.export.trained import MAIN_FAMILIES, SEQUENCE_LENGTH, exported, trained_classifier

LENGTH, WIDTH = 16, 32


def convert(folder: Path, flat_ids: bool) -> Path:
    """A small graph as transformers' own classes would make it, or with its ids one-dimensional."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    table = tf.constant(random.normal(size=(50, WIDTH)).astype(np.float32))
    kernel = tf.constant(random.normal(size=(WIDTH, WIDTH)).astype(np.float32))

    @tf.function(
        input_signature=[
            tf.TensorSpec([1, LENGTH], tf.int32, "input_ids"),
            tf.TensorSpec([1, LENGTH], tf.int32, "attention_mask"),
        ]
    )
    def graph(input_ids: tf.Tensor, attention_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        ids = tf.reshape(input_ids, [LENGTH]) if flat_ids else input_ids
        rows = tf.reshape(tf.gather(table, ids), [1, LENGTH, WIDTH]) @ kernel
        tokens = tf.cast(tf.cast(attention_mask, tf.int64), tf.float32)
        return {"logits": rows[:, 0] * tf.reduce_sum(tokens, 1, keepdims=True)}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph.get_concrete_function()], tf.Module())
    path = folder / "model.tflite"
    path.write_bytes(converter.convert())
    return path


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("stock"), flat_ids=False)


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_our_exports_are_on_the_gpu_whole_and_right(gpu: str, family: str) -> None:
    found = analyze(exported(family).tflite / "model.tflite")
    assert found.measurement is not None
    assert found.whole and found.agreed and found.prediction.whole
    assert found.measurement.placement.adapter == gpu
    assert found.measurement.delegated == found.prediction.total
    assert found.measurement.rel_diff < 1e-5


def test_fp16_is_near(gpu: str) -> None:
    fp32, fp16 = (analyze(exported("bert").tflite / "model.tflite", precision=p).measurement for p in ("fp32", "fp16"))
    assert fp32 is not None and fp16 is not None
    assert fp16.right
    # Another arithmetic, not the same one under another name.
    assert fp16.rel_diff > 10 * fp32.rel_diff


def test_a_stock_graph_is_refused_in_parts_with_reasons(gpu: str, stock: Path) -> None:
    found = analyze(stock)
    assert found.measurement is not None
    assert not found.whole
    assert found.agreed, "rules and runtime differ"
    assert found.measurement.right
    reasons = {finding.operator: finding.reason for finding in found.prediction.refused}
    assert reasons["GATHER"] == "indices that are not one-dimensional"
    assert reasons["STRIDED_SLICE"] == "a slice that drops an axis"
    assert reasons["CAST"] == "a tensor of a type that the delegate does not take"
    said = "\n".join(found.measurement.placement.refused)
    assert "GATHER: Only support 1D indices" in said
    assert "shrink_axis_mask" in said


def test_a_whole_and_wrong_model_is_not_passed(gpu: str, tmp_path: Path) -> None:
    """What TensorFlow's converter makes of our graph, without the rewrite: delegated whole, and wrong."""
    import tensorflow as tf

    traced = trace(load_classifier(trained_classifier("bert")), SEQUENCE_LENGTH, -1e4)
    converted = bytes(tf.lite.TFLiteConverter.from_concrete_functions([traced.function], traced.module).convert())
    path = tmp_path / "model.tflite"
    path.write_bytes(converted)
    found = analyze(path)
    assert found.measurement is not None
    assert found.measurement.placement.left == 0
    assert not found.measurement.right and not found.whole
    assert [finding.operator for finding in found.prediction.hazards] == ["ADD"]
    rewritten, count = restore_token_axis(converted)
    assert count == 1
    path.write_bytes(rewritten)
    assert predict(read_operators(path)).whole
    assert restore_token_axis(rewritten) == (rewritten, 0)


def test_the_command(gpu: str, stock: Path) -> None:
    run = CliRunner().invoke
    whole = run(app, ["delegation", str(exported("bert").tflite)])
    assert whole.exit_code == 0, whole.output
    assert "whole" in whole.output.splitlines()[-1] and "software" in whole.output
    parts = run(app, ["delegation", str(stock), "--json"])
    assert parts.exit_code == 1
    document = json.loads(parts.stdout)
    assert document["measured"]["delegated"] == document["predicted"]["delegated"] < document["predicted"]["total"]


def test_rules_alone_need_no_gpu(stock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", "/nonexistent.json")
    alone = CliRunner().invoke(app, ["delegation", str(stock), "--predict"])
    assert alone.exit_code == 1
    assert "GATHER #" in alone.stdout and "runtime" not in alone.stdout
    with pytest.raises(DeviceError, match="no GPU was found"):
        analyze(stock)


def test_a_gpu_that_hangs_is_killed(stock: Path) -> None:
    rows = {name: np.ones((1, LENGTH), np.int32) for name in ("input_ids", "attention_mask")}
    with pytest.raises(DeviceError, match=r"did not answer within 0\.05 s"):
        run_on_gpu(stock, rows, "fp32", timeout_s=0.05)


def test_a_silent_runtime_is_no_gpu() -> None:
    with pytest.raises(DeviceError, match="no GPU"):
        read_placement("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "model.tflite"
    broken.write_bytes((exported("bert").tflite / "model.tflite").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="damaged"):
        analyze(broken, measure=False)
    result = CliRunner().invoke(app, ["delegation", str(tmp_path / "gone.tflite")])
    assert isinstance(result.exception, ParamsError)


def test_a_worker_that_fails_for_another_reason_is_not_called_a_missing_gpu(tmp_path: Path) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(b"no model")
    with pytest.raises(DeviceError, match="failed"):
        run_on_gpu(model, {"x": np.ones((1, 4), np.float32)}, "fp32")

"""Files that pocketbert did not build: placed, run and compared as far as they can be, else one clear line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils
from typer.testing import CliRunner

from pocketbert.cli import app
from pocketbert.delegation.analyze import Delegation, analyze, find_profile, predict_file
from pocketbert.delegation.operators import read_operators
from pocketbert.delegation.predict import predict
from pocketbert.delegation.text import as_text
from pocketbert.errors import CheckpointError, PocketBertError
from tests.delegation.graphs import LENGTH, table_and_kernel

LITERT = find_profile("litert-2.3")


def convert(path: Path, shapes: dict[str, tuple[Any, list[Any]]], graph: Callable[..., Any], **options: Any) -> Path:
    """A .tflite file of a graph with inputs of the given dtypes and shapes."""
    import tensorflow as tf

    specs = [tf.TensorSpec(shape, dtype, name) for name, (dtype, shape) in shapes.items()]
    concrete = tf.function(graph, input_signature=specs).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
    for name, value in options.items():
        setattr(converter, name, value)
    path.write_bytes(converter.convert())
    return path


def kinds(found: Delegation) -> set[str]:
    return {finding.operator for finding in (*found.prediction.refused, *found.prediction.hazards)}


def test_int64_ids_and_no_signature(gpu: str, tmp_path: Path) -> None:
    import tensorflow as tf

    table, kernel = table_and_kernel(tf)
    path = convert(
        tmp_path / "model.tflite",
        {"ids": (tf.int64, [1, LENGTH])},
        lambda ids: {"logits": tf.reduce_mean(tf.gather(table, ids), 1) @ kernel},
    )
    tree = flatbuffer_utils.read_model(str(path))
    tree.signatureDefs = None
    flatbuffer_utils.write_model(tree, str(path))
    found = analyze(path, LITERT)
    (measured,) = found.measurements
    assert measured.right and measured.error is None
    assert found.agreed and not found.whole
    assert kinds(found) == {"GATHER"}


def test_one_of_two_outputs_is_compared_with_itself_and_inputs_may_lack_a_batch(gpu: str, tmp_path: Path) -> None:
    """The runtimes tell the outputs in different orders."""
    import tensorflow as tf

    path = convert(
        tmp_path / "model.tflite",
        {"x": (tf.float32, [8]), "z": (tf.float32, [8])},
        lambda x, z: {"a": tf.tanh(x * 2.0 + z), "b": tf.nn.relu(z)},
    )
    found = analyze(path, LITERT)
    (measured,) = found.measurements
    assert found.whole and measured.rows == 6 and measured.rel_diff is not None and measured.rel_diff < 1e-5


def images(tf: Any) -> Any:
    random = np.random.default_rng(0)
    wide, deep, head = (
        tf.constant(0.3 * random.normal(size=shape).astype(np.float32))
        for shape in ((3, 3, 3, 8), (3, 3, 8, 1), (8, 5))
    )

    def graph(image: Any) -> Any:
        x = tf.nn.relu6(tf.nn.conv2d(image, wide, 2, "SAME"))
        x = tf.nn.max_pool2d(tf.nn.depthwise_conv2d(x, deep, [1, 1, 1, 1], "SAME"), 2, 2, "SAME")
        return {"out": tf.reduce_mean(x, [1, 2]) @ head}

    return graph


def test_a_quantized_cnn_is_placed_and_not_judged_by_its_integers(gpu: str, tmp_path: Path) -> None:
    import tensorflow as tf

    random = np.random.default_rng(0)
    path = convert(
        tmp_path / "model.tflite",
        {"image": (tf.float32, [1, 16, 16, 3])},
        images(tf),
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([random.normal(size=(1, 16, 16, 3)).astype(np.float32)] for _ in range(4)),
        inference_input_type=tf.int8,
        inference_output_type=tf.int8,
    )
    found = analyze(path, LITERT)
    (measured,) = found.measurements
    assert found.prediction.whole and found.agreed
    assert measured.right is None and not found.whole
    assert "UNPROVEN: serving_default_image:0 is quantized" in as_text(found)


def test_the_same_for_all_rows_proves_nothing_and_the_placement_stands(gpu: str, tmp_path: Path) -> None:
    import tensorflow as tf

    shapes = {"x": (tf.float32, [1, 8])}
    found = analyze(convert(tmp_path / "model.tflite", shapes, lambda x: {"y": tf.nn.relu(x) * 1e-30}), LITERT)
    (measured,) = found.measurements
    assert found.agreed and measured.delegated == found.prediction.total
    assert measured.unproven is not None and "hardly depend on the input" in measured.unproven
    assert not found.whole and measured.as_dict()["rel_diff"] is None


def test_a_custom_operator_fails_as_foretold(gpu: str, tmp_path: Path) -> None:
    import tensorflow as tf

    path = convert(
        tmp_path / "model.tflite",
        {"x": (tf.float32, [1, 8])},
        lambda x: {"y": tf.raw_ops.Digamma(x=tf.abs(x) + 1.0)},
        allow_custom_ops=True,
    )
    found = analyze(path, LITERT)
    (measured,) = found.measurements
    assert found.agreed and found.prediction.fails and "CUSTOM Digamma" in kinds(found)
    assert measured.error is not None and "unresolved custom op: Digamma" in measured.error
    assert "allow_custom_ops" in measured.error


def test_control_flow_stays_on_the_processor(tmp_path: Path) -> None:
    import tensorflow as tf

    path = convert(
        tmp_path / "model.tflite",
        {"x": (tf.float32, [1, 8])},
        lambda x: {"y": tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, lambda: x - 1.0)},
    )
    found = predict(read_operators(path), LITERT)
    # As the runtime says: a sum without dimensions is taken as long as no larger tensor meets it.
    assert [finding.operator for finding in found.refused] == ["IF"]
    assert found.delegated == 2


def test_what_cannot_be_placed_is_one_line(tmp_path: Path) -> None:
    import tensorflow as tf

    text = convert(tmp_path / "text.tflite", {"text": (tf.string, [1, 8])}, lambda text: {"y": tf.identity(text)})
    contents = {"empty": b"", "named-so": b"\x08\x08\x12\x04onnx", "noise": np.random.default_rng(0).bytes(500)}
    for name, content in contents.items():
        (tmp_path / f"{name}.tflite").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"is empty|does not start as a TFLite file"):
            predict_file(tmp_path / f"{name}.tflite", LITERT)
    with pytest.raises(CheckpointError, match="has no operators"):
        predict_file(text, LITERT)
    (tmp_path / "model.onnx").write_bytes(contents["named-so"])
    for path in tmp_path.iterdir():
        result = CliRunner().invoke(app, ["delegation", str(path)])
        assert isinstance(result.exception, PocketBertError), path
        assert "\n" not in str(result.exception)


def test_words_cannot_be_made_up(tmp_path: Path) -> None:
    import tensorflow as tf

    path = convert(
        tmp_path / "model.tflite",
        {"text": (tf.string, [1, 8]), "x": (tf.float32, [1, 8])},
        lambda text, x: {"y": x * 2.0, "same": tf.reshape(text, [8])},
    )
    with pytest.raises(CheckpointError, match=r"input 'text' .* is string: .* --predict"):
        analyze(path, LITERT)
    assert predict_file(path, LITERT).total == 2

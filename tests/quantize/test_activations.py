import numpy as np
import onnx as onnx_format
import pytest

from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import Split
from pocketbert.params import CalibrationParams
from pocketbert.quantize.activations import onnx_ranges, real_positions, tflite_ranges
from pocketbert.quantize.calibration import draw_rows
from pocketbert.quantize.flatbuffer import float_ops
from pocketbert.quantize.options import StaticOptions


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 8, 32), (1, 3, 32)), ((1, 2, 8, 16), (1, 2, 3, 16)), ((1, 2, 8, 8), (1, 2, 3, 8)), ((8, 32), (3, 32)),
     ((1, 32), (1, 32)), ((1, 8), (1, 8)), ((1, 1, 8), (1, 1, 8))],
)  # fmt: skip
def test_only_the_sequence_axis_is_cut(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert real_positions(np.zeros(shape, np.float32), tokens=3, length=8).shape == expected


def test_padding_does_not_widen_a_range(tflite: Artifact, toy_split: Split) -> None:
    model = tflite.model_path.read_bytes()
    tensors = sorted({i for op in float_ops(model) if op.kind == "FULLY_CONNECTED" for i, _ in op.activations})
    rows = draw_rows(CalibrationParams(rows=8), toy_split, tflite.folder, 16)
    measured = tflite_ranges(model, tensors, rows, StaticOptions())
    assert sorted(measured) == tensors
    assert all(found.maximum > found.minimum for found in measured.values())
    again = draw_rows(CalibrationParams(rows=8), toy_split, tflite.folder, 16)
    again.inputs["attention_mask"][:] = 1
    everywhere = tflite_ranges(model, tensors, again, StaticOptions())
    assert measured != everywhere


def test_both_formats_see_the_same_activations(tflite: Artifact, onnx: Artifact, toy_split: Split) -> None:
    rows = draw_rows(CalibrationParams(rows=8), toy_split, tflite.folder, 16)
    content = tflite.model_path.read_bytes()
    last = [op for op in float_ops(content) if op.kind == "FULLY_CONNECTED"][-1].outputs[0][0]
    (logits,) = tflite_ranges(content, [last], rows, StaticOptions()).values()
    (same,) = onnx_ranges(onnx_format.load(onnx.model_path), ["logits"], rows, StaticOptions()).values()
    assert (logits.minimum, logits.maximum, logits.rms) == pytest.approx((same.minimum, same.maximum, same.rms), 1e-4)


def test_the_same_model_is_measured_once_on_the_same_rows(onnx: Artifact, toy_split: Split) -> None:
    rows = draw_rows(CalibrationParams(rows=4), toy_split, onnx.folder, 16)
    model = onnx_format.load(onnx.model_path)
    first = onnx_ranges(model, ["logits"], rows, StaticOptions())
    assert onnx_ranges(model, ["logits"], rows, StaticOptions()) is first
    assert onnx_ranges(model, ["logits"], rows, StaticOptions(ranges="entropy")) is not first

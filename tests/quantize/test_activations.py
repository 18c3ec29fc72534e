import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import Split
from pocketbert.params import CalibrationParams
from pocketbert.quantize.activations import ActivationRange, measure_ranges, real_positions
from pocketbert.quantize.calibration import draw_rows
from pocketbert.quantize.flatbuffer import float_ops


@given(hnp.arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32)))
def test_a_range_holds_zero_and_all_values(rows: np.ndarray) -> None:
    measured = ActivationRange()
    for row in rows:
        measured.update(row)
    assert measured.minimum == min(0.0, rows.min())
    assert measured.maximum == max(0.0, rows.max())
    if np.abs(rows).max() > 1e-3:
        rms = np.sqrt(np.mean(rows.astype(np.float64) ** 2))
        assert measured.crest_factor == pytest.approx((measured.maximum - measured.minimum) / rms)


def test_an_outlier_shows_in_the_crest_factor() -> None:
    calm, outlier = ActivationRange(), ActivationRange()
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    calm.update(values)
    outlier.update(np.append(values, np.float32(200)))
    assert calm.crest_factor < 10 < 50 < outlier.crest_factor


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 8, 32), (1, 3, 32)), ((1, 2, 8, 16), (1, 2, 3, 16)), ((1, 2, 8, 8), (1, 2, 3, 8)), ((8, 32), (3, 32)),
     ((1, 32), (1, 32)), ((1, 8), (1, 8)), ((1, 1, 8), (1, 1, 8))],
)  # fmt: skip
def test_only_the_sequence_axis_is_cut(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert real_positions(np.zeros(shape, np.float32), tokens=3, length=8).shape == expected


def test_padding_does_not_widen_a_range(tflite: Artifact, toy_split: Split) -> None:
    rows = draw_rows(CalibrationParams(rows=8), toy_split, tflite.folder, 16)
    model = tflite.model_path.read_bytes()
    tensors = {index for op in float_ops(model) if op.kind == "FULLY_CONNECTED" for index, _ in op.activations}
    measured = measure_ranges(model, tensors, rows)
    rows.inputs["attention_mask"][:] = 1
    everywhere = measure_ranges(model, tensors, rows)
    assert set(measured) == tensors
    assert all(found.maximum > found.minimum for found in measured.values())
    assert sum(found.count for found in measured.values()) < sum(found.count for found in everywhere.values())

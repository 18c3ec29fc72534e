import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pocketbert.runtimes.metrics import expected_calibration_error, predictions, probabilities, score_logits

LOGITS = hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(2, 6)), elements=st.floats(-30, 30, width=32))


@given(LOGITS)
def test_single_label_probabilities_are_a_distribution_that_keeps_the_order(logits: np.ndarray) -> None:
    probability = probabilities(logits, "single_label")
    np.testing.assert_allclose(probability.sum(axis=1), 1.0)
    best = predictions(logits, "single_label")
    np.testing.assert_array_equal(probability[np.arange(len(logits)), best], probability.max(axis=1))


@given(hnp.arrays(np.int8, (4, 3)))
def test_multi_label_predicts_what_is_over_one_half(signs: np.ndarray) -> None:
    np.testing.assert_array_equal(predictions(signs / 8.0, "multi_label"), (signs > 0).astype(int))


def test_half_confident_and_always_right_is_half_off() -> None:
    assert expected_calibration_error(np.full(10, 0.5), np.ones(10, bool)) == pytest.approx(0.5)


def test_errors_of_different_bins_do_not_cancel_and_those_of_one_bin_do() -> None:
    # 0.5 right half of the time, though each single prediction is off by 0.5.
    assert expected_calibration_error(np.full(4, 0.5), np.array([1, 1, 0, 0], bool)) == pytest.approx(0.0)
    # 0.9 never right, 0.1 always right: right half of the time on average, but off by 0.9 in each bin.
    assert expected_calibration_error(np.array([0.9, 0.1]), np.array([0, 1], bool)) == pytest.approx(0.9)


def test_bins_are_closed_on_the_right_and_zero_is_in_the_first() -> None:
    # 1/15 and 0 share the first bin: gap |(0 - 1/15 + 1 - 0)| / 2; a bin of its own for each would give more.
    error = expected_calibration_error(np.array([1 / 15, 0.0]), np.array([0, 1], bool))
    assert error == pytest.approx((1 - 1 / 15) / 2)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
)
def test_calibration_error_is_bounded_and_does_not_depend_on_the_order(
    rows: list[tuple[float, bool]], random: "object"
) -> None:
    confidence, correct = map(np.array, zip(*rows, strict=True))
    error = expected_calibration_error(confidence, correct.astype(bool))
    assert 0.0 <= error <= 1.0
    # No binning can hide the gap between the overall accuracy and the mean confidence (triangle inequality).
    assert error >= abs(correct.mean() - confidence.mean()) - 1e-9
    order = np.arange(len(rows))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert expected_calibration_error(confidence[order], correct[order].astype(bool)) == pytest.approx(error)


@given(st.integers(1, 400), st.floats(0.01, 0.99))
def test_a_perfectly_calibrated_predictor_has_no_error(right: int, confidence: float) -> None:
    total = round(right / confidence)
    if total >= right:
        share = np.full(total, right / total)
        assert expected_calibration_error(share, np.arange(total) < right) == pytest.approx(0.0, abs=1e-9)


def test_score_of_single_label_logits() -> None:
    logits = np.array([[4.0, 0, 0], [4.0, 0, 0], [0, 4.0, 0], [0, 4.0, 0]], np.float32)
    score = score_logits(logits, np.array([0, 0, 1, 2]), "single_label")
    assert score.accuracy == 0.75
    # F1 of the classes: 1, 2/3, 0.
    assert score.macro_f1 == pytest.approx((1 + 2 / 3 + 0) / 3)
    confidence = np.exp(4) / (np.exp(4) + 2)
    assert score.ece == pytest.approx(confidence - 0.75)


def test_score_of_multi_label_logits_counts_whole_rows() -> None:
    targets = np.array([[1, 0], [1, 1]], np.float32)
    logits = np.array([[9.0, -9.0], [9.0, -9.0]], np.float32)
    score = score_logits(logits, targets, "multi_label")
    assert score.accuracy == 0.5
    assert score.macro_f1 == pytest.approx((1 + 0) / 2)
    # Three of four binary decisions are right, each at a confidence near 1.
    assert score.ece == pytest.approx(0.25, abs=1e-3)

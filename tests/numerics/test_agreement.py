import numpy as np
import pytest

from pocketbert.numerics.agreement import decision_agreement

REFERENCE = np.array([[2.0, -1.0], [-1.0, 3.0], [1.0, 1.0 + 1e-6], [0.5, -2.0]], np.float32)


def test_a_broken_tie_is_counted_and_not_held_against_the_candidate():
    candidate = REFERENCE.copy()
    candidate[2] = [1.0 + 1e-6, 1.0]
    agreement = decision_agreement(REFERENCE, candidate, multi_label=False)
    assert (agreement.all_rows, agreement.clear_rows, agreement.ties) == (0.75, 1.0, 1)


def test_a_clear_row_that_flips_counts():
    candidate = REFERENCE.copy()
    candidate[0] = [-1.0, 2.0]
    agreement = decision_agreement(REFERENCE, candidate, multi_label=False)
    assert agreement.all_rows == 0.75
    assert agreement.clear_rows == pytest.approx(2 / 3)


def test_multi_label_decisions_are_signs():
    candidate = REFERENCE + np.float32(0.75)
    single = decision_agreement(REFERENCE, candidate, multi_label=False)
    multi = decision_agreement(REFERENCE, candidate, multi_label=True)
    assert single.all_rows == 1.0
    assert multi.all_rows == 1.0
    flipped = REFERENCE * np.array([1, -1], np.float32)
    assert decision_agreement(REFERENCE, flipped, multi_label=True).all_rows == 0.0

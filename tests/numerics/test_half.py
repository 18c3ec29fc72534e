import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pocketbert.numerics.half import HALF_MAX, HALF_NORMAL, LOSS_MAX, SMALLEST_KEPT, HalfRange

FLOATS = arrays(np.float32, array_shapes(max_dims=2, max_side=12), elements=st.floats(width=32))


def measured(*parts: np.ndarray) -> HalfRange:
    seen = HalfRange()
    for part in parts:
        seen.update(part)
    return seen


@given(FLOATS)
def test_a_range_counts_what_the_cast_would_lose(values: np.ndarray) -> None:
    seen = measured(values)
    finite = values[np.isfinite(values)].astype(np.float64)
    assert seen.nonfinite == values.size - finite.size
    assert seen.overflows == int((np.abs(finite) > HALF_MAX).sum())
    assert seen.largest == (np.abs(finite).max() if finite.size else 0.0)
    small = finite[(np.abs(finite) < HALF_NORMAL) & (finite != 0)]
    lost = np.linalg.norm(small - small.astype(np.float16))
    wide = np.linalg.norm(np.clip(finite, -HALF_MAX, HALF_MAX))
    # Squares of the smallest float32 are 0, in a sum of float32 as well.
    if wide > 1e-15:
        assert seen.denormal_loss == pytest.approx(lost / wide, rel=1e-3, abs=1e-12)


@given(FLOATS, FLOATS)
def test_rows_add_up(first: np.ndarray, second: np.ndarray) -> None:
    apart, together = measured(first, second), measured(np.concatenate([first.reshape(-1), second.reshape(-1)]))
    assert (apart.count, apart.overflows, apart.nonfinite) == (together.count, together.overflows, together.nonfinite)
    assert apart.largest == together.largest
    assert apart.denormal_loss == pytest.approx(together.denormal_loss, rel=1e-3, abs=1e-12)


def test_normal_numbers_lose_nothing_and_small_ones_everything() -> None:
    assert measured(np.float32([1, -3, 1000])).denormal_loss == 0
    assert measured(np.float32([1e-9, -2e-9])).denormal_loss == pytest.approx(1.0)
    assert measured(np.float32([1e-12])).smallest < SMALLEST_KEPT
    # The limit for single numbers is the one for tensors.
    edge = np.float32([SMALLEST_KEPT])
    assert abs(float(edge.astype(np.float16)[0]) - float(edge[0])) / float(edge[0]) <= LOSS_MAX


def test_an_empty_tensor_has_no_range() -> None:
    seen = measured(np.zeros((0, 4), dtype=np.float32))
    assert (seen.largest, seen.count, seen.smallest) == (0.0, 0, math.inf)


def test_the_row_of_the_largest_value_is_kept() -> None:
    seen = HalfRange()
    for row, value in (("real", 1.0), ("padding", -7.0), ("holes", 3.0)):
        seen.update(np.float32([value]), row)
    assert (seen.row, seen.minimum, seen.maximum) == ("padding", -7.0, 3.0)

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pocketbert.quantize.options import StaticOptions
from pocketbert.quantize.ranges import Histogram, Range, RangeCollector

NUMBERS = hnp.arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32))


def collected(rows: list[np.ndarray], method: str = "min_max", clip: float | None = None) -> Range:
    collector = RangeCollector(method, clip)
    for row in rows:
        collector.update("x", row)
    return collector.ranges()["x"]


@given(NUMBERS)
def test_a_range_holds_zero_and_all_values(rows: np.ndarray) -> None:
    found = collected(list(rows))
    assert found.minimum == min(0.0, rows.min())
    assert found.maximum == max(0.0, rows.max())
    if np.abs(rows).max() > 1e-3:
        rms = np.sqrt(np.mean(rows.astype(np.float64) ** 2))
        assert found.crest_factor == pytest.approx((found.maximum - found.minimum) / rms)


@settings(deadline=None, max_examples=50)
@given(NUMBERS, st.sampled_from(["min_max", "percentile", "entropy"]), st.sampled_from([None, 90.0, 99.99]))
def test_no_method_reaches_beyond_the_extremes_or_leaves_out_zero(
    rows: np.ndarray, method: str, clip: float | None
) -> None:
    found = collected(list(rows), method, clip)
    assert min(0.0, rows.min()) <= found.minimum <= 0.0 <= found.maximum <= max(0.0, rows.max())


@given(NUMBERS)
def test_a_histogram_counts_every_value_and_grows_in_any_order(rows: np.ndarray) -> None:
    histogram = Histogram()
    for row in rows:
        histogram.update(row)
    assert histogram.counts.sum() == rows.size
    assert histogram.limit >= np.abs(rows).max()


def test_a_percentile_is_that_of_the_values() -> None:
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    found = collected(np.array_split(values, 20), clip=99.0)
    low, high = np.percentile(values, [0.5, 99.5])
    assert (found.minimum, found.maximum) == pytest.approx((low, high), abs=0.01)


def test_an_outlier_shows_in_the_crest_factor_and_is_clipped() -> None:
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    rows = [*np.split(values, 10), np.float32([200])]
    assert collected(rows[:-1]).crest_factor < 10 < 50 < collected(rows).crest_factor
    assert collected(rows, clip=99.9).crest_factor < 10
    assert collected(rows, "entropy").maximum < 50


def test_the_entropy_of_even_values_is_best_kept_by_the_whole_range() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 200_000).astype(np.float32)
    found = collected([values], "entropy")
    assert found.maximum > 0.95
    assert found.minimum < -0.95


def test_the_percentile_method_has_a_percentile_of_its_own_that_the_clip_replaces() -> None:
    assert RangeCollector.of(StaticOptions(ranges="percentile"), None).clip == 99.99
    assert RangeCollector.of(StaticOptions(ranges="percentile"), 99.0).clip == 99.0
    assert RangeCollector.of(StaticOptions(), None).clip is None
    assert RangeCollector.of(StaticOptions(), 99.0).clip == 99.0

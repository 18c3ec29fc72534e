"""Stratified splitting."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketbert.data.clean import Row
from pocketbert.data.split import stratified_split
from pocketbert.errors import DataError


def rows_of(sizes: list[int]) -> list[Row]:
    return [Row(f"{c}-{i}", (f"class {c}",)) for c, size in enumerate(sizes) for i in range(size)]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(3, 60), min_size=1, max_size=12), st.floats(0.05, 0.45), st.integers(0, 2**32 - 1))
def test_every_split_has_every_class_and_no_row_is_lost(sizes: list[int], fraction: float, seed: int) -> None:
    rows = rows_of(sizes)
    train, (test, valid) = stratified_split(rows, [fraction, fraction], seed)
    assert sorted(r.text for r in [*train, *test, *valid]) == sorted(r.text for r in rows)
    classes = {r.labels for r in rows}
    assert {r.labels for r in train} == {r.labels for r in test} == {r.labels for r in valid} == classes
    # One row a class is promised; beyond that the sizes are the fractions.
    assert abs(len(test) - fraction * len(rows)) <= len(classes)
    assert stratified_split(rows, [fraction, fraction], seed) == (train, [test, valid])


def test_shares_follow_the_classes() -> None:
    train, (test,) = stratified_split(rows_of([100, 20]), [0.15], seed=1)
    assert Counter(r.labels[0] for r in test) == {"class 0": 15, "class 1": 3}
    assert len(train) == 102
    assert stratified_split(rows_of([100, 20]), [0.15], seed=2)[1][0] != test


def test_a_class_that_is_too_small_is_named_with_its_count_and_the_need() -> None:
    with pytest.raises(DataError, match="'class 1' has 2, where each needs 3"):
        stratified_split(rows_of([9, 2, 9]), [0.1, 0.1], seed=0)


def test_multi_label_rows_count_for_their_rarest_class() -> None:
    rows = [Row(f"a{i}", ("a",)) for i in range(20)] + [Row(f"ab{i}", ("a", "b")) for i in range(4)]
    train, parts = stratified_split(rows, [0.1, 0.1], seed=0)
    for part in (train, *parts):
        assert {"a", "b"} <= {label for row in part for label in row.labels}

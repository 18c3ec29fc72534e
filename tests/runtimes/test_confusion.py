import csv
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pocketbert.data.dataset import LabelSet
from pocketbert.runtimes.confusion import NONE, confusion_pairs, most_confused, write_confusion


def test_single_label_pairs_are_one_a_row() -> None:
    pairs = confusion_pairs(LabelSet(("a", "b")), np.array([0, 1, 1]), np.array([0, 0, 1]))
    assert pairs == [("a", "a"), ("b", "a"), ("b", "b")]


def test_multi_label_pairs_name_missed_and_spurious_labels() -> None:
    labels = LabelSet(("a", "b", "c"), "multi_label")
    pairs = confusion_pairs(labels, np.array([[1.0, 1.0, 0.0]]), np.array([[1, 0, 1]]))
    assert pairs == [("a", "a"), ("b", NONE), (NONE, "c")]


NAMES = st.sampled_from([f"class {index}" for index in range(12)])


@given(st.lists(st.tuples(NAMES, NAMES), max_size=80), st.integers(2, 12))
def test_most_confused_keeps_whole_rows_of_few_classes_and_the_worst_pair(
    pairs: list[tuple[str, str]], classes_max: int
) -> None:
    kept = most_confused(pairs, classes_max)
    classes = {name for pair in kept for name in pair}
    assert len(classes) <= classes_max
    if len({name for pair in pairs for name in pair}) <= classes_max:
        assert kept == pairs
        return
    assert kept == [pair for pair in pairs if classes.issuperset(pair)]
    errors = [pair for pair in pairs if pair[0] != pair[1]]
    if errors:
        worst = max(errors.count(pair) for pair in errors)
        assert any(errors.count(pair) == worst for pair in kept if pair[0] != pair[1])


def test_written_file_is_what_dvc_plots(tmp_path: Path) -> None:
    write_confusion([("ä, b", "c")], tmp_path / "confusion.csv")
    with (tmp_path / "confusion.csv").open(encoding="utf-8", newline="") as stream:
        assert list(csv.DictReader(stream)) == [{"actual": "ä, b", "predicted": "c"}]

"""Fronts, intervals, confusions, budgets, label placement and numbers as text."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketbert.errors import PocketBertError
from pocketbert.params import Budget
from pocketbert.report.budgets import check_budgets
from pocketbert.report.format import UNKNOWN, megabytes, milliseconds, percent, points, scientific, significant
from pocketbert.report.labels import Box, place_labels
from pocketbert.report.pareto import pareto_front
from pocketbert.report.sources import read_benchmarks, read_evaluated
from pocketbert.report.statistics import paired_errors, wilson_interval, worst_confusion
from pocketbert.report.table import ResultRow, join_rows
from tests.report.conftest import write_sources

costs = st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=20)
predictions = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=200)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[ResultRow]:
    sources = write_sources(tmp_path_factory.mktemp("rows"), devices=("board", "local"))
    return join_rows(read_evaluated(sources.evaluated), read_benchmarks(sources.benchmarked))


def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


@given(costs)
def test_the_front_is_exactly_the_undominated_points(points: list[tuple[int, int, int]]) -> None:
    front = set(pareto_front(points))
    assert front
    for index, point in enumerate(points):
        assert (index in front) == (not any(dominates(other, point) for other in points))


@given(st.integers(1, 5000), st.floats(0, 1))
def test_wilson_interval_holds_the_share_and_narrows(rows: int, share: float) -> None:
    low, high = wilson_interval(share, rows)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    wider_low, wider_high = wilson_interval(share, max(1, rows // 2))
    assert high - low <= wider_high - wider_low + 1e-12


def test_wilson_interval_of_a_textbook_case() -> None:
    # Newcombe (1998), table I: 81 of 263.
    low, high = wilson_interval(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


@given(predictions, st.integers(1, 12))
def test_confusion_accounts_for_every_row_and_error(pairs: list[tuple[int, int]], count: int) -> None:
    labels, predicted = [p[0] for p in pairs], [p[1] for p in pairs]
    confusion = worst_confusion(labels, predicted, count)
    assert confusion.errors == sum(a != b for a, b in pairs)
    assert len(confusion.classes) <= count
    for actual, row in zip(confusion.classes, confusion.counts, strict=True):
        assert sum(row) == labels.count(actual)
    assert confusion.errors_shown <= confusion.errors
    if count >= 9:
        assert confusion.errors_shown == confusion.errors
        assert all(row[-1] == 0 for row in confusion.counts)


@given(predictions)
def test_paired_errors_explain_the_difference_of_accuracies(pairs: list[tuple[int, int]]) -> None:
    labels = [0] * len(pairs)
    paired = paired_errors(labels, [a for a, _ in pairs], [b for _, b in pairs])
    right = [sum(value == 0 for value in column) for column in zip(*pairs, strict=True)]
    assert right[0] - right[1] == paired.only_first_right - paired.only_second_right


@given(st.lists(st.tuples(st.floats(30, 470), st.floats(30, 270)), min_size=1, max_size=9))
def test_labels_stay_in_the_frame_and_do_not_cover_one_another(points: list[tuple[float, float]]) -> None:
    boxes = place_labels(points, [5.0] * len(points), [(60.0, 11.0)] * len(points), Box(0, 0, 500, 300))
    for index, box in enumerate(boxes):
        assert box.x0 >= -1e-6
        assert box.y0 >= -1e-6
        assert box.x1 <= 500 + 1e-6
        assert box.y1 <= 300 + 1e-6
        assert all(box.overlap(other) < 1e-6 for other in boxes[:index])


def test_a_lone_label_is_beside_its_point() -> None:
    (box,) = place_labels([(100.0, 100.0)], [5.0], [(60.0, 11.0)], Box(0, 0, 500, 300))
    nearest = (min(max(100.0, box.x0), box.x1), min(max(100.0, box.y0), box.y1))
    assert 5 <= math.dist(nearest, (100.0, 100.0)) < 10


def test_budgets_match_by_wildcard_on_artifact_and_device(rows: list[ResultRow]) -> None:
    verdicts = check_budgets([Budget(artifact="tflite-*", device="b*", latency_p90_ms_max=10.0)], rows)
    assert {v.device for v in verdicts} == {"board"}
    assert {v.measurement for v in verdicts if v.passed} == {"tflite-dynamic_wi8_afp32"}
    assert len(verdicts) == 4


def test_a_figure_at_its_limit_passes(rows: list[ResultRow]) -> None:
    row = rows[3]
    at = Budget(artifact=row.artifact, device=row.device, size_bytes_max=row.size_bytes)
    over = at.model_copy(update={"size_bytes_max": row.size_bytes - 1})
    assert [v.passed for v in check_budgets([at, over], rows)] == [True, False]


def test_an_unknown_figure_fails_its_limit(rows: list[ResultRow]) -> None:
    silent = [row.model_copy(update={"latency_p90_ms": None}) for row in rows[:1]]
    (verdict,) = check_budgets([Budget(artifact="teacher", latency_p90_ms_max=1e6)], silent)
    assert not verdict.passed
    assert "latency_p90_ms is unknown" in str(verdict)


def test_an_invalid_row_fails_even_a_budget_of_size(rows: list[ResultRow]) -> None:
    broken = [rows[2].model_copy(update={"error": "killed"})]
    (verdict,) = check_budgets([Budget(artifact="onnx-fp32", size_bytes_max=10**12)], broken)
    assert not verdict.passed
    assert "not measured: killed" in str(verdict)


@given(st.floats(1e-6, 1e9))
def test_three_digits_are_within_half_a_unit_of_the_last_one(value: float) -> None:
    shown = float(significant(value).replace(",", ""))
    assert shown == pytest.approx(value, rel=0.0051)


def test_numbers_as_text() -> None:
    assert percent(0.95533) == "95.53 %"
    assert points(-0.5) == "−0.50"
    assert points(0.5) == "+0.50"
    assert milliseconds(1234.5) == "1,230 ms"
    assert milliseconds(5.0) == "5.00 ms"
    assert megabytes(17_900_000) == "17.9 MB"
    assert scientific(0.0) == "0"
    assert percent(None) == milliseconds(None) == megabytes(None) == scientific(None) == UNKNOWN


def test_a_stale_device_folder_is_explained(tmp_path: Path) -> None:
    sources = write_sources(tmp_path)
    evaluated = [row.model_copy(update={"md5": "new"}) for row in read_evaluated(sources.evaluated)]
    with pytest.raises(PocketBertError, match="no longer in devices"):
        join_rows(evaluated, read_benchmarks(sources.benchmarked))

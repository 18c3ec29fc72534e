"""Comparisons of latencies: equals are equal, differences are found, drift and outliers are said."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketbert.report.latency import Rounds, compare_latencies, note_latencies

RECORDED = Path(__file__).parent / "equal_runs.json"


def rounds_like_a_machine(
    generator: np.random.Generator, count: int = 5, runs: int = 40, factor: float = 1.0
) -> list[list[float]]:
    """Rounds of a few percent, runs with a tail, now and then a run that another process disturbed."""
    rounds = []
    for _ in range(count):
        level = 5.0 * factor * np.exp(generator.normal(0, 0.02))
        noise = generator.gamma(1.2, 0.03, size=runs) + (generator.random(runs) < 0.02) * generator.uniform(1, 5)
        rounds.append((level * (1 + noise)).tolist())
    return rounds


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("count", [3, 5, 8])
def test_equals_are_said_to_be_equal_19_times_of_20(interleaved: bool, count: int) -> None:
    generator = np.random.default_rng(13)
    trials = [
        compare_latencies(
            rounds_like_a_machine(generator, count), rounds_like_a_machine(generator, count), interleaved=interleaved
        )
        for _ in range(400)
    ]
    assert np.mean([trial.outcome == "no difference" for trial in trials]) >= 0.98
    assert np.mean([trial.interval[0] <= 1 <= trial.interval[1] for trial in trials if trial.interval]) >= 0.98


def test_recorded_runs_of_one_file_are_equal_19_times_of_20() -> None:
    pairs: list[tuple[Rounds, Rounds]] = json.loads(RECORDED.read_text())["pairs"]
    assert len(pairs) >= 20
    for interleaved in (True, False):
        outcomes = [compare_latencies(a, b, interleaved=interleaved).outcome for a, b in pairs]
        assert outcomes.count("no difference") >= 0.95 * len(outcomes)


@pytest.mark.parametrize("interleaved", [True, False])
def test_a_tenth_is_found_in_eight_rounds_and_has_its_direction(interleaved: bool) -> None:
    generator = np.random.default_rng(13)
    for factor, outcome in ((1.1, "slower"), (1 / 1.1, "faster")):
        found = [
            compare_latencies(
                rounds_like_a_machine(generator, 8), rounds_like_a_machine(generator, 8, factor=factor),
                interleaved=interleaved,
            )
            for _ in range(50)
        ]  # fmt: skip
        assert sum(comparison.outcome == outcome for comparison in found) >= 45
        assert np.median([comparison.ratio for comparison in found]) == pytest.approx(factor, rel=0.02)


def test_what_both_sides_share_does_not_hide_a_difference_of_one_run() -> None:
    # Each round of the machine is another 20 %, the second file 3 % slower in each of them.
    levels = (1.0, 1.2, 0.9, 1.1)
    first = [[level * value for value in (4.9, 5.0, 5.1)] for level in levels]
    second = [[1.03 * value for value in runs] for runs in first]
    assert compare_latencies(first, second, interleaved=True).outcome == "slower"
    assert compare_latencies(first, second, interleaved=False).outcome == "no difference"


def test_a_difference_too_small_to_matter_is_none() -> None:
    exact = [[5.0] * 10] * 4
    comparison = compare_latencies(exact, [[5.02] * 10] * 4, interleaved=True)
    assert comparison.outcome == "no difference"
    assert comparison.interval == pytest.approx((1.004, 1.004))
    assert compare_latencies(exact, [[5.02] * 10] * 4, interleaved=True, smallest=0.0).outcome == "slower"


def test_one_round_tells_nothing() -> None:
    comparison = compare_latencies([[5.0, 5.1]], [[2.0, 2.1]], interleaved=True)
    assert (comparison.outcome, comparison.interval) == ("unknown", None)
    assert str(comparison).startswith("unknown: 0.406 times the time, but one round")
    with pytest.raises(ValueError, match="no rounds"):
        compare_latencies([], [[1.0]], interleaved=False)


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(0.1, 1e3), min_size=1, max_size=9), min_size=2, max_size=6), st.floats(0.2, 5.0))
def test_swapping_the_sides_turns_the_verdict_round(rounds: list[list[float]], factor: float) -> None:
    other = [[factor * value for value in runs] for runs in rounds]
    for interleaved in (True, False):
        there = compare_latencies(rounds, other, interleaved=interleaved)
        back = compare_latencies(other, rounds, interleaved=interleaved)
        assert there.ratio * back.ratio == pytest.approx(1)
        assert there.interval is not None
        low, high = there.interval
        assert low <= there.ratio <= high
        # Where an end lies on the border, the last bit decides.
        if min(abs(low - 1.01), abs(high - 1 / 1.01)) > 1e-6:
            opposite = {"faster": "slower", "slower": "faster"}
            assert back.outcome == opposite.get(there.outcome, there.outcome)


def test_outliers_are_counted_and_kept_in_the_figures() -> None:
    runs = [5.0, 5.1, 5.2, 5.0, 5.1, 5.2, 5.1, 5.0, 40.0, 5.1]
    assert note_latencies([runs, runs]).outliers == 2
    assert note_latencies([runs[:8], runs[:8]]).outliers == 0


def test_drift_is_flagged_where_it_is_beyond_chance() -> None:
    generator = np.random.default_rng(13)
    steady = rounds_like_a_machine(generator)
    assert not note_latencies(steady).drifts
    heating = [[value * (1 + 0.2 * i / len(runs)) for i, value in enumerate(runs)] for runs in steady]
    notes = note_latencies(heating)
    assert notes.drifts
    assert notes.drift == pytest.approx(0.15, abs=0.05)
    assert not note_latencies([[1.0], [2.0]]).drifts
    flagged = sum(note_latencies(rounds_like_a_machine(generator)).drifts for _ in range(200))
    assert flagged <= 4

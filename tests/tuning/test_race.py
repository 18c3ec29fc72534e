import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketbert.tuning.race import GAIN_MIN, Measure, compare, race


class Clock:
    """Time that passes by measuring alone."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def device(
    true_ms: dict[str, float], noise: float, seed: int = 0
) -> tuple[Measure, Clock, list[tuple[list[str], int]]]:
    """A device on which a round slows all forms down alike, and each a little on its own."""
    clock, chance, asked = Clock(), random.Random(seed), []

    def measure(names: Sequence[str], rounds: int) -> dict[str, list[list[float]]]:
        asked.append((list(names), rounds))
        clock.seconds += len(names) * rounds
        slow = [chance.uniform(1.0, 1.3) for _ in range(rounds)]
        return {
            name: [[true_ms[name] * s * chance.gauss(1.0, noise) for _ in range(5)] for s in slow] for name in names
        }

    return measure, clock, asked


def run(true_ms: dict[str, float], noise: float = 0.01, budget: float = 1e6, seed: int = 0):
    measure, clock, asked = device(true_ms, noise, seed)
    return race(list(true_ms), measure, budget, clock), asked, clock


FORMS = {"default": 10.0, "b": 11.0, "c": 9.0, "d": 12.0, "e": 10.5, "f": 13.0, "g": 9.6, "h": 14.0}


def test_the_fastest_form_wins_and_slow_ones_are_measured_little() -> None:
    found, asked, _ = run(FORMS)
    assert (found.winner, found.outcome) == ("c", "faster")
    assert found.duel is not None
    assert found.duel.ratio == pytest.approx(0.9, abs=0.01)
    assert found.rounds["h"] == 2
    assert found.rounds["c"] > 10
    assert all("default" in names for names, _ in asked)


def test_a_difference_within_the_noise_is_none_and_keeps_the_default() -> None:
    even = dict.fromkeys(FORMS, 10.0)
    outcomes = [run(even, noise=0.03, seed=seed)[0] for seed in range(20)]
    assert {found.winner for found in outcomes} == {"default"}
    assert {found.outcome for found in outcomes} == {"no difference"}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1.0, 100.0), min_size=1, max_size=12), st.integers(0, 1000))
def test_what_wins_is_faster_indeed(latencies: list[float], seed: int) -> None:
    true_ms = {f"form {i}": ms for i, ms in enumerate(latencies)}
    found, _, _ = run(true_ms, noise=0.005, seed=seed)
    assert true_ms[found.winner] <= true_ms["form 0"]
    if min(latencies) < latencies[0] * 0.9:
        assert found.outcome == "faster"
        assert true_ms[found.winner] <= 1.02 * min(latencies)


def test_the_last_comparison_is_of_rounds_that_chose_nobody() -> None:
    found, asked, _ = run(FORMS)
    names, rounds = asked[-1]
    assert names == ["default", "c"]
    assert found.duel is not None
    assert found.duel.rounds == rounds


@pytest.mark.parametrize("budget", [1.0, 20.0, 40.0, 80.0, 200.0])
def test_the_budget_is_kept(budget: float) -> None:
    found, _, clock = run(FORMS, budget=budget)
    # The first rung tells how long a round takes: it is measured whatever the budget.
    assert clock.seconds <= max(budget, 2 * len(FORMS))
    if found.outcome == "out of time":
        assert found.winner == "default"


def test_a_budget_that_building_used_up_measures_nothing() -> None:
    found, asked, _ = run(FORMS, budget=0.0)
    assert (found.outcome, found.winner, asked) == ("out of time", "default", [])


def test_a_form_that_cannot_be_measured_drops_out() -> None:
    measure, clock, _ = device(FORMS, 0.01)

    def broken(names: Sequence[str], rounds: int) -> dict[str, list[list[float]]]:
        return {name: ms for name, ms in measure(names, rounds).items() if name != "c"}

    found = race(list(FORMS), broken, 1e6, clock)
    assert found.winner == "g"
    assert "c" not in found.medians_ms


def test_one_form_has_no_challenger() -> None:
    found, asked, _ = run({"default": 5.0})
    assert (found.outcome, found.winner, asked) == ("no challenger", "default", [])


def test_rounds_are_compared_in_pairs() -> None:
    """A machine that becomes three times slower hides nothing from pairs."""

    def slower(ms: float) -> list[list[float]]:
        return [[ms * (1 + 2 * k / 11)] * 3 for k in range(12)]

    duel = compare(slower(10.0), slower(9.0))
    assert duel.won
    assert duel.ratio == pytest.approx(0.9)
    assert not compare(slower(10.0), slower(10.0 * (1 - GAIN_MIN / 2))).won

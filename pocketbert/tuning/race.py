"""Find the fastest of several forms by measuring, with few measurements of those that are clearly slow.

Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943): every rung measures those that are left for twice as
many rounds and keeps the faster half. The default is never dropped. What is left at the end is measured against the
default once more, on rounds that chose nobody: the fastest of many noisy figures looks better than it is.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

# Names and rounds -> latencies in milliseconds of each round, by name; a name that failed is left out.
Measure = Callable[[Sequence[str], int], dict[str, list[list[float]]]]

_FIRST_ROUNDS, _FINAL_ROUNDS, _FINAL_ROUNDS_MIN = 2, 12, 6
# A gain that would not be worth another graph counts as none.
GAIN_MIN = 0.01
_RESAMPLES = 4000


@dataclass(frozen=True)
class Duel:
    """Two forms over the same rounds: the ratio of their latencies, below 1 where the challenger is faster."""

    ratio: float
    # 95 % interval, by a bootstrap over rounds.
    ratio_low: float
    ratio_high: float
    rounds: int

    @property
    def won(self) -> bool:
        """Whether the challenger is faster by at least GAIN_MIN, whatever the noise of these rounds."""
        return self.ratio_high < 1 - GAIN_MIN


@dataclass
class Race:
    """What was measured, and how it ended."""

    default: str
    winner: str
    # "faster", "no difference", "no challenger" or "out of time".
    outcome: str
    duel: Duel | None = None
    challenger: str | None = None
    # Medians of all measured rounds in milliseconds, by name; and how many rounds they are of.
    medians_ms: dict[str, float] = field(default_factory=dict)
    rounds: dict[str, int] = field(default_factory=dict)


def race(names: Sequence[str], measure: Measure, deadline: float, now: Callable[[], float] = time.monotonic) -> Race:
    """Race `names`, the default first, until one is left or `deadline` (on the clock `now`) comes near."""
    default, left, rounds = names[0], list(names), _FIRST_ROUNDS
    seen: dict[str, list[list[float]]] = {name: [] for name in names}
    seconds_a_round = 0.0
    while len(left) > 2:
        # Half of the time that is left belongs to the last comparison.
        room = (deadline - now()) / 2
        if room <= 0 or seconds_a_round * len(left) * rounds > room:
            break
        started = now()
        measured = measure(left, rounds)
        seconds_a_round = max(seconds_a_round, (now() - started) / (len(left) * rounds))
        for name, latencies in measured.items():
            seen[name] += latencies
        others = sorted((n for n in measured if n != default), key=lambda n: _typical(seen[n]))
        left = [default, *others[: max(1, len(left) // 2 - 1)]]
        rounds *= 2
    result = Race(default, default, "out of time" if len(names) > 1 else "no challenger")
    challenger = min((n for n in left[1:] if seen[n] or len(names) == 2), key=lambda n: _typical(seen[n]), default=None)
    if challenger is not None:
        _decide(result, challenger, measure, _final_rounds(deadline - now(), seconds_a_round), seen)
    result.medians_ms = {name: _typical(latencies) for name, latencies in seen.items() if latencies}
    result.rounds = {name: len(latencies) for name, latencies in seen.items() if latencies}
    return result


def _final_rounds(seconds_left: float, seconds_a_round: float) -> int:
    if seconds_a_round <= 0:
        return _FINAL_ROUNDS
    return min(_FINAL_ROUNDS, int(seconds_left / (2 * seconds_a_round)))


def _decide(result: Race, challenger: str, measure: Measure, rounds: int, seen: dict[str, list[list[float]]]) -> None:
    """Compare the challenger with the default on rounds of their own."""
    result.challenger = challenger
    if rounds < _FINAL_ROUNDS_MIN:
        result.outcome = "out of time"
        return
    last = measure([result.default, challenger], rounds)
    for name, latencies in last.items():
        seen[name] += latencies
    if challenger not in last:
        result.outcome = "no challenger"
        return
    result.duel = compare(last[result.default], last[challenger])
    result.outcome = "faster" if result.duel.won else "no difference"
    result.winner = challenger if result.duel.won else result.default


def compare(default: Sequence[Sequence[float]], challenger: Sequence[Sequence[float]], seed: int = 13) -> Duel:
    """The ratio of two forms' latencies, round by round: what slows a whole round down slows both."""
    pairs = list(zip(default, challenger, strict=True))
    logs = np.array([math.log(np.median(theirs) / np.median(ours)) for ours, theirs in pairs])
    random = np.random.default_rng(seed)
    drawn = np.median(logs[random.integers(len(logs), size=(_RESAMPLES, len(logs)))], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Duel(math.exp(np.median(logs)), math.exp(low), math.exp(high), len(logs))


def _typical(rounds: Sequence[Sequence[float]]) -> float:
    return float(np.median([np.median(latencies) for latencies in rounds])) if rounds else math.inf

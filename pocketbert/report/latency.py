"""What raw latencies allow one to say: faster, slower or no difference; drift; outliers, which are kept.

What varies is not the single run but the round: a fresh process has its own memory layout, and the machine its moods.
So the unit of every test here is a round's median, on a logarithmic scale (differences are ratios).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rounds = Sequence[Sequence[float]]
Outcome = Literal["faster", "slower", "no difference", "unknown"]

# Of the intervals of ratios: twenty comparisons of equals give one false alarm in five times, not in one.
CONFIDENCE = 0.99
# A difference below this share is none, however sure it is: another build of the same file can do as much.
SMALLEST_DIFFERENCE = 0.01
_TREND_SURE, _TREND_SHARE = 0.01, 0.05
_FENCE = 3.0


@dataclass(frozen=True)
class LatencyComparison:
    """The second one's time over the first one's (below 1: faster), and the interval it lies in at `confidence`."""

    outcome: Outcome
    ratio: float
    # None where there are too few rounds to say.
    interval: tuple[float, float] | None
    confidence: float
    # Differences up to this share count as none.
    smallest: float

    def __str__(self) -> str:
        if self.interval is None:
            return f"unknown: {self.ratio:.3f} times the time, but one round each tells nothing of the next"
        low, high = self.interval
        return (
            f"{self.outcome}: {self.ratio:.3f} times the time ({self.confidence:.0%} interval {low:.3f} to {high:.3f})"
        )


def compare_latencies(
    first: Rounds,
    second: Rounds,
    *,
    interleaved: bool,
    confidence: float = CONFIDENCE,
    smallest: float = SMALLEST_DIFFERENCE,
) -> LatencyComparison:
    """Compare two artifacts of one run (`interleaved`: round by round), or one artifact in two runs.

    Student's t on the paired differences of the rounds' log medians, or Welch's (1947) on the two groups. Raises
    ValueError for a side without rounds.
    """
    a, b = _log_medians(first), _log_medians(second)
    if interleaved and len(a) == len(b):
        difference, error, freedom = _paired(b - a)
    else:
        difference, error, freedom = _welch(a, b)
    if error is None:
        return LatencyComparison("unknown", math.exp(difference), None, confidence, smallest)
    half = error * _student(freedom, confidence)
    interval = (math.exp(difference - half), math.exp(difference + half))
    outcome = _outcome(difference, half, smallest)
    return LatencyComparison(outcome, math.exp(difference), interval, confidence, smallest)


def _outcome(difference: float, half: float, smallest: float) -> Outcome:
    # The whole interval has to lie beyond it.
    if abs(difference) <= half + math.log1p(smallest):
        return "no difference"
    return "slower" if difference > 0 else "faster"


def _log_medians(rounds: Rounds) -> NDArray[np.float64]:
    medians = [float(np.median(runs)) for runs in rounds if len(runs)]
    if not medians:
        raise ValueError("no rounds")
    return np.log(np.asarray(medians, dtype=np.float64))


def _paired(differences: NDArray[np.float64]) -> tuple[float, float | None, float]:
    """Mean, standard error (None for one round) and degrees of freedom."""
    count = len(differences)
    error = float(differences.std(ddof=1)) / math.sqrt(count) if count > 1 else None
    return float(differences.mean()), error, count - 1.0


def _welch(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float | None, float]:
    """The same for two independent groups; Satterthwaite's degrees of freedom."""
    difference = float(b.mean() - a.mean())
    if min(len(a), len(b)) < 2:
        return difference, None, 0.0
    parts = [float(group.var(ddof=1)) / len(group) for group in (a, b)]
    total = sum(parts)
    if total == 0.0:
        return difference, 0.0, len(a) + len(b) - 2.0
    freedom = total**2 / sum(p**2 / (len(g) - 1) for p, g in zip(parts, (a, b), strict=True))
    return difference, math.sqrt(total), freedom


def _student(freedom: float, confidence: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, freedom))


@dataclass(frozen=True)
class LatencyNotes:
    """What to know before believing a median."""

    # Runs beyond three interquartile ranges above the third quartile. They are counted, never removed.
    outliers: int
    # Median of a round's last quarter over that of its first, minus 1; the median over the rounds.
    drift: float
    # Whether that is beyond chance and beyond 5 %.
    drifts: bool


def note_latencies(rounds: Rounds) -> LatencyNotes:
    """Outliers and drift of one artifact's raw latencies.

    Drift is judged by Mann and Kendall's test of trend (Mann 1945), summed over the rounds, each being a process of
    its own. Raises ValueError where there are no runs.
    """
    pooled = np.concatenate([np.asarray(runs, dtype=np.float64) for runs in rounds])
    if not len(pooled):
        raise ValueError("no runs")
    first, third = np.quantile(pooled, [0.25, 0.75])
    outliers = int((pooled > third + _FENCE * (third - first)).sum())
    changes = [_change(np.asarray(runs, dtype=np.float64)) for runs in rounds if len(runs) > 3]
    drift = float(np.median(changes)) if changes else 0.0
    return LatencyNotes(outliers, drift, abs(drift) > _TREND_SHARE and _trend_chance(rounds) < _TREND_SURE)


def _change(runs: NDArray[np.float64]) -> float:
    quarter = max(1, len(runs) // 4)
    return float(np.median(runs[-quarter:]) / np.median(runs[:quarter])) - 1.0


def _trend_chance(rounds: Rounds) -> float:
    """Probability of a trend at least as strong where there is none (normal approximation)."""
    score = variance = 0.0
    for runs in rounds:
        values, count = np.asarray(runs, dtype=np.float64), len(runs)
        score += float(np.triu(np.sign(values[None, :] - values[:, None]), 1).sum())
        variance += count * (count - 1) * (2 * count + 5) / 18
    if variance == 0.0:
        return 1.0
    z = max(0.0, abs(score) - 1.0) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))

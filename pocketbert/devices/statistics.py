"""What is said about raw latencies: quantiles, and how sure the median is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 2000


@dataclass(frozen=True)
class LatencySummary:
    """Quantiles over all runs in milliseconds, and a 95 % confidence interval of the median."""

    p50_ms: float
    p90_ms: float
    p50_ci_ms: tuple[float, float]


def summarise_latencies(rounds_ms: Sequence[Sequence[float]], seed: int) -> LatencySummary:
    """Summarise the latencies of one artifact, a list a round (a fresh process each)."""
    pooled = np.concatenate([np.asarray(r, dtype=np.float64) for r in rounds_ms])
    p50, p90 = np.quantile(pooled, [0.5, 0.9])
    return LatencySummary(float(p50), float(p90), median_interval(rounds_ms, seed))


def median_interval(
    rounds_ms: Sequence[Sequence[float]], seed: int, confidence: float = 0.95, resamples: int = _RESAMPLES
) -> tuple[float, float]:
    """Percentile interval of the pooled median by a two-level bootstrap; seeded, so that it can be repeated.

    Rounds are drawn with replacement, then runs inside each drawn round: runs of one process resemble one
    another (memory layout, clock), and to draw single runs only would claim too much (Davison & Hinkley 1997,
    section 3.8). With the few rounds of a benchmark it is a rough interval, not an exact one.
    """
    rounds = [np.asarray(r, dtype=np.float64) for r in rounds_ms]
    generator = np.random.default_rng(seed)
    medians = np.empty(resamples)
    for index in range(resamples):
        drawn = generator.integers(len(rounds), size=len(rounds))
        medians[index] = np.median(
            np.concatenate([generator.choice(rounds[chosen], size=len(rounds[chosen])) for chosen in drawn])
        )
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    # The pooled median lies in its own interval, however skewed the rounds are.
    centre = float(np.median(np.concatenate(rounds)))
    return min(float(low), centre), max(float(high), centre)

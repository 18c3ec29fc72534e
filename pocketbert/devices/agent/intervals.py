"""How sure the median of latencies is, in the standard library alone: on the device it says when to stop."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median

RESAMPLES = 2000


def median_interval(
    rounds_ms: Sequence[Sequence[float]], seed: int, confidence: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile interval of the pooled median by a two-level bootstrap; seeded, so that it can be repeated.

    Rounds are drawn with replacement, then runs inside each drawn round: runs of one process resemble one
    another (memory layout, clock), and to draw single runs only would claim too much (Davison & Hinkley 1997,
    section 3.8). With the few rounds of a benchmark it is a rough interval, not an exact one.
    """
    generator = random.Random(seed)
    medians = []
    for _ in range(resamples):
        drawn = generator.choices(rounds_ms, k=len(rounds_ms))
        medians.append(median([value for runs in drawn for value in generator.choices(runs, k=len(runs))]))
    medians.sort()
    tail = (1 - confidence) / 2
    # The pooled median lies in its own interval, however skewed the rounds are.
    centre = median([value for runs in rounds_ms for value in runs])
    return min(_quantile(medians, tail), centre), max(_quantile(medians, 1 - tail), centre)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between order statistics, as numpy's default."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])

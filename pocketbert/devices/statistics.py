"""What is said about raw latencies: quantiles, and how sure the median is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pocketbert.devices.agent.intervals import median_interval


@dataclass(frozen=True)
class LatencySummary:
    """Quantiles over all runs in milliseconds, and a 95 % confidence interval of the median."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    p50_ci_ms: tuple[float, float]


def summarise_latencies(rounds_ms: Sequence[Sequence[float]], seed: int) -> LatencySummary:
    """Summarise the latencies of one artifact, a list a round (a fresh process each)."""
    pooled = np.concatenate([np.asarray(r, dtype=np.float64) for r in rounds_ms])
    p50, p90, p99 = np.quantile(pooled, [0.5, 0.9, 0.99])
    return LatencySummary(float(p50), float(p90), float(p99), median_interval(rounds_ms, seed))

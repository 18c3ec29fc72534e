"""Which rows no other row beats."""

from collections.abc import Sequence

from pocketbert.report.table import ResultRow


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points (tuples of costs, lower is better) that no other point dominates.

    A point dominates another when it is nowhere worse and somewhere better; equal points are all kept.
    """
    return [
        index
        for index, point in enumerate(points)
        if not any(
            all(o <= p for o, p in zip(other, point, strict=True)) and tuple(other) != tuple(point) for other in points
        )
    ]


def best_rows(rows: Sequence[ResultRow]) -> set[tuple[str, str]]:
    """(measurement, device) of the rows on their device's front of accuracy, latency and size."""
    best = set()
    for device in {row.device for row in rows}:
        own = [row for row in rows if row.device == device and row.error is None and row.latency_p50_ms is not None]
        costs = [(-row.accuracy, row.latency_p50_ms or 0.0, float(row.size_bytes)) for row in own]
        best |= {(own[index].measurement, device) for index in pareto_front(costs)}
    return best

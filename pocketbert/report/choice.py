"""Which artifact is shipped: the best measured one by `quantize.objective`, judged on validation rows alone.

The test rows have no say: a figure by which something was chosen is no longer a fair estimate of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pocketbert.errors import ParamsError
from pocketbert.params import Objective
from pocketbert.report.statistics import paired_errors
from pocketbert.report.table import ResultRow

_Z95 = 1.959964


@dataclass(frozen=True)
class Candidate:
    """A converted artifact on the objective's device; `why_not` is None for one that may be chosen."""

    artifact: str
    # The artifact, with "@gpu-..." on a GPU.
    measurement: str
    valid_accuracy: float
    # Percentage points against the teacher.
    valid_accuracy_drop: float
    latency_p50_ms: float | None
    latency_p50_ci_ms: tuple[float, float] | None
    size_bytes: int
    md5: str
    why_not: str | None


@dataclass(frozen=True)
class Choice:
    """The artifact that is shipped and why; `chosen` is None where none meets the objective."""

    objective: Objective
    chosen: str | None
    # What of it was measured: on the processor, or on a GPU.
    measurement: str | None
    # The one that misses the objective by least, where none meets it.
    nearest: str | None
    reason: str
    candidates: list[Candidate]

    def as_dict(self) -> dict[str, Any]:
        """The choice as JSON."""
        return {**asdict(self), "objective": self.objective.model_dump()}


def choose(objective: Objective, rows: Sequence[ResultRow], predictions: Mapping[str, Sequence[Any]]) -> Choice:
    """Choose among the rows of the objective's device.

    `predictions` are the predicted classes on the validation rows by artifact, and the actual ones as `label`. Torch
    models, and rows that were not measured or not proven, are never chosen. Raises ParamsError for a device without
    rows.
    """
    devices = sorted({row.device for row in rows})
    if objective.device not in devices:
        raise ParamsError(
            f"quantize.objective.device: {objective.device!r} was not measured", f"Measured: {', '.join(devices)}."
        )
    candidates = [
        _candidate(objective, row) for row in rows if row.device == objective.device and row.format != "torch"
    ]
    eligible = [candidate for candidate in candidates if candidate.why_not is None]
    if not eligible:
        return _none(objective, candidates)
    chosen, note = _best(objective, eligible, predictions)
    artifacts = len({candidate.artifact for candidate in eligible})
    number = "the only one" if artifacts == 1 else f"the {_adjective(objective)} of {artifacts}"
    reason = f"{chosen.measurement} is {number} {_that_may_be(objective, rows)}: {_figures(chosen)}.{note}"
    return Choice(objective, chosen.artifact, chosen.measurement, None, reason, candidates)


def _candidate(objective: Objective, row: ResultRow) -> Candidate:
    low, high = row.latency_p50_ci_low_ms, row.latency_p50_ci_high_ms
    return Candidate(
        artifact=row.artifact,
        measurement=row.measurement,
        valid_accuracy=row.valid_accuracy,
        valid_accuracy_drop=row.valid_accuracy_drop,
        latency_p50_ms=row.latency_p50_ms,
        latency_p50_ci_ms=None if low is None or high is None else (low, high),
        size_bytes=row.size_bytes,
        md5=row.md5,
        why_not=_why_not(objective, row),
    )


def _why_not(objective: Objective, row: ResultRow) -> str | None:
    if row.error is not None:
        return f"not measured: {row.error}"
    if row.latency_p50_ms is None or row.logit_rel_diff is None:
        return "its latency or its proof is unknown"
    if objective.format not in (None, row.format):
        return f"it is {row.format}"
    over = row.valid_accuracy_drop - objective.accuracy_drop_max
    return f"it loses {row.valid_accuracy_drop:.2f} points, {over:.2f} too many" if over > 0 else None


def _best(
    objective: Objective, eligible: Sequence[Candidate], predictions: Mapping[str, Sequence[Any]]
) -> tuple[Candidate, str]:
    """The candidate to ship, and a sentence on those that are as good within the noise."""
    if objective.kind == "smallest":
        return min(eligible, key=_by_size), ""
    if objective.kind == "fastest":
        best = min(eligible, key=lambda c: c.latency_p50_ms or math.inf)
        alike = [c for c in eligible if c is best or _as_fast(best, c)]
        beaten = f"{best.measurement} has the lowest median ({best.latency_p50_ms:.2f} ms)"
    else:
        best = max(eligible, key=lambda c: c.valid_accuracy)
        alike = [c for c in eligible if c is best or _as_accurate(predictions, best.artifact, c.artifact)]
        beaten = f"{best.measurement} has the highest accuracy ({100 * best.valid_accuracy:.2f} %)"
    chosen = min(alike, key=_by_size)
    if chosen is not best:
        return chosen, f" {beaten}, but the difference is within the noise, and of those alike the smallest is taken."
    others = [c.measurement for c in alike if c is not best]
    return chosen, f" Within the noise as good, but larger: {', '.join(others)}." if others else ""


def _by_size(candidate: Candidate) -> tuple[int, float]:
    return candidate.size_bytes, candidate.latency_p50_ms or math.inf


def _as_fast(best: Candidate, other: Candidate) -> bool:
    """Whether the 95 % intervals of the two medians overlap."""
    if best.latency_p50_ci_ms is None or other.latency_p50_ci_ms is None:
        return False
    return other.latency_p50_ci_ms[0] <= best.latency_p50_ci_ms[1]


def _as_accurate(predictions: Mapping[str, Sequence[Any]], best: str, other: str) -> bool:
    """Whether a paired test at 95 % cannot tell two artifacts apart (McNemar 1947, without continuity correction)."""
    pairs = paired_errors(predictions["label"], predictions[best], predictions[other])
    only_one = pairs.only_first_right + pairs.only_second_right
    return abs(pairs.only_first_right - pairs.only_second_right) <= _Z95 * math.sqrt(only_one)


def _none(objective: Objective, candidates: Sequence[Candidate]) -> Choice:
    """No row meets the objective: an outcome, not an error (a budget is what stops the pipeline)."""
    known = [c for c in candidates if c.why_not and c.why_not.startswith("it loses")]
    if not known:
        reason = f"No converted artifact was measured on {objective.device}"
        wanted = "" if objective.format is None else f" as {objective.format}"
        return Choice(objective, None, None, None, f"{reason}{wanted}, so none is chosen.", list(candidates))
    nearest = min(known, key=lambda c: (c.valid_accuracy_drop, *_by_size(c)))
    reason = (
        f"No converted artifact on {objective.device} loses at most {objective.accuracy_drop_max:g} points of "
        f"validation accuracy, so none is chosen. The nearest is {nearest.artifact}: {nearest.why_not}."
    )
    return Choice(objective, None, None, nearest.artifact, reason, list(candidates))


def _adjective(objective: Objective) -> str:
    return objective.kind.replace("_", " ")


def _that_may_be(objective: Objective, rows: Sequence[ResultRow]) -> str:
    kind = "converted" if objective.format is None else objective.format
    return (
        f"{kind} artifacts on {objective.device} that lose at most {objective.accuracy_drop_max:g} points against the "
        f"teacher on {rows[0].valid_rows:,} validation rows"
    )


def _figures(candidate: Candidate) -> str:
    interval = (
        ""
        if candidate.latency_p50_ci_ms is None
        else " (95 % interval {:.2f} to {:.2f})".format(*candidate.latency_p50_ci_ms)
    )
    return (
        f"p50 {candidate.latency_p50_ms:.2f} ms{interval}, {candidate.size_bytes / 1e6:.1f} MB, "
        f"{candidate.valid_accuracy_drop:+.2f} points lost"
    )

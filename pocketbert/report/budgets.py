"""Budgets of params.yaml against the rows, and the row that the report puts first."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pocketbert.params import Budget
from pocketbert.report.table import ResultRow

# Points of accuracy that the headline row may lose where no budget says otherwise.
_DROP_WITHOUT_BUDGET = 2.0
# Limit of a budget -> the row's figure, with its unit for messages.
_LIMITS = {
    "accuracy_drop_max": ("accuracy_drop", "points"),
    "latency_p90_ms_max": ("latency_p90_ms", "ms"),
    "size_bytes_max": ("size_bytes", "bytes"),
}


@dataclass(frozen=True)
class Verdict:
    """One limit of one budget on one row."""

    artifact: str
    device: str
    figure: str
    unit: str
    limit: float | None
    measured: float | None
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        if self.note:
            return f"{self.artifact} on {self.device}: {self.note}"
        comparison = f"{_number(self.measured)} {'<=' if self.passed else '>'} {_number(self.limit)}"
        return f"{self.artifact} on {self.device}: {self.figure} {comparison} {self.unit}"


def _number(value: float | None) -> str:
    """Exact enough to see on which side of a limit a figure is."""
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.6g}"


def check_budgets(budgets: Sequence[Budget], rows: Sequence[ResultRow]) -> list[Verdict]:
    """A verdict for each limit and row. An unknown figure, an invalid row and a budget without a row all fail."""
    verdicts: list[Verdict] = []
    for budget in budgets:
        matching = [row for row in rows if _matches(budget, row)]
        if not matching:
            note = "the budget matches no row"
            verdicts.append(Verdict(budget.artifact, budget.device, "", "", None, None, False, note))
        for row in matching:
            verdicts += _check(budget, row)
    return verdicts


def _matches(budget: Budget, row: ResultRow) -> bool:
    return fnmatchcase(row.artifact, budget.artifact) and fnmatchcase(row.device, budget.device)


def _check(budget: Budget, row: ResultRow) -> list[Verdict]:
    if row.error is not None:
        return [Verdict(row.artifact, row.device, "", "", None, None, False, f"not measured: {row.error}")]
    verdicts = []
    for name, (figure, unit) in _LIMITS.items():
        limit, measured = getattr(budget, name), getattr(row, figure)
        if limit is None:
            continue
        passed = measured is not None and measured <= limit
        note = "" if measured is not None else f"{figure} is unknown, its limit is {_number(limit)} {unit}"
        verdicts.append(Verdict(row.artifact, row.device, figure, unit, limit, measured, passed, note))
    return verdicts


def headline_row(budgets: Sequence[Budget], rows: Sequence[ResultRow]) -> ResultRow | None:
    """The fastest converted artifact that keeps its budgets (on the first device), None where none does.

    Where budgets name artifacts, only those are candidates; without budgets, those that lose at most 2 points.
    """
    if not rows:
        return None
    candidates = [
        row
        for row in rows
        if row.device == rows[0].device and row.format != "torch" and row.error is None and row.latency_p50_ms
    ]
    if budgets:
        candidates = [
            row
            for row in candidates
            if any(_matches(budget, row) for budget in budgets)
            and all(verdict.passed for b in budgets if _matches(b, row) for verdict in _check(b, row))
        ]
    else:
        candidates = [row for row in candidates if row.accuracy_drop <= _DROP_WITHOUT_BUDGET]
    return min(candidates, key=lambda row: row.latency_p50_ms or 0.0, default=None)

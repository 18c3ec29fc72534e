"""Budgets of params.yaml against the rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pocketbert.params import Budget
from pocketbert.report.table import ResultRow

# Limit of a budget -> the row's figure, with its unit for messages.
_LIMITS = {
    "accuracy_drop_max": ("accuracy_drop", "points"),
    "latency_p90_ms_max": ("latency_p90_ms", "ms"),
    "size_bytes_max": ("size_bytes", "bytes"),
}


@dataclass(frozen=True)
class Verdict:
    """One limit of one budget on one row."""

    # The artifact, with "@gpu-..." on a GPU.
    measurement: str
    device: str
    figure: str
    unit: str
    limit: float | None
    measured: float | None
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        if self.note:
            return f"{self.measurement} on {self.device}: {self.note}"
        comparison = f"{_number(self.measured)} {'<=' if self.passed else '>'} {_number(self.limit)}"
        return f"{self.measurement} on {self.device}: {self.figure} {comparison} {self.unit}"


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
        return [Verdict(row.measurement, row.device, "", "", None, None, False, f"not measured: {row.error}")]
    verdicts = []
    for name, (figure, unit) in _LIMITS.items():
        limit, measured = getattr(budget, name), getattr(row, figure)
        if limit is None:
            continue
        passed = measured is not None and measured <= limit
        note = "" if measured is not None else f"{figure} is unknown, its limit is {_number(limit)} {unit}"
        verdicts.append(Verdict(row.measurement, row.device, figure, unit, limit, measured, passed, note))
    return verdicts

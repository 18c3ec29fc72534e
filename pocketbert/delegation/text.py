"""An analysis for people."""

from pocketbert.delegation.analyze import Delegation
from pocketbert.delegation.measure import Measurement
from pocketbert.delegation.predict import Finding


def as_text(found: Delegation) -> str:
    """Lines: the rules' count, the runtime's, the result, every refused operator and the verdict."""
    said = found.prediction
    lines = [found.file, f"rules      {_count(said.delegated, said.total, min(said.delegated, 1))}, by {said.profile}"]
    if len(said.parts) > 1:
        lines.append(f"           the largest of {len(said.parts)} parts between refused operators")
    for measured in found.measurements:
        lines += _measurement(measured, said.total)
    if found.agreed is False:
        lines.append("disagreed  rules and runtime count differently: trust the runtime, and report the file")
    lines += [_line(finding) for finding in (*said.refused, *said.hazards)]
    lines += [
        f"refused    by the runtime: {reason}"
        for measured in found.measurements[:1]
        if measured.placement
        for reason in measured.placement.refused
    ]
    if found.missing:
        lines.append(f"runtime    not asked: {found.missing}")
    elif not found.measurements:
        lines.append("runtime    not asked: this is what the rules say, and no measurement")
    verdict = "whole by the rules, UNPROVEN" if found.missing else "whole"
    lines.append(verdict if found.whole else "NOT whole")
    return "\n".join(lines)


def _measurement(measured: Measurement, total: int) -> list[str]:
    placed = measured.placement
    if placed is None:
        return [f"runtime    {measured.error}"]
    software = " (software: for proofs, not for times)" if placed.software else ""
    verdict = {True: "as the CPU", False: "NOT what the CPU computes", None: "UNPROVEN on these rows"}[measured.right]
    weights = " with the same weights in floating point" if measured.dequantized else ""
    lines = [
        f"runtime    {_count(measured.delegated, total, placed.partitions or 0)}",
        f"adapter    {placed.adapter}{software}",
    ]
    if measured.rel_diff is None:
        return [*lines, f"result     UNPROVEN: {measured.unproven}"]
    result = (
        f"{verdict}{weights}: largest difference {measured.rel_diff:.1e} of the spread, limit {measured.limit or 0:.0e}"
    )
    return [*lines, f"result     {result}, {measured.precision}, {measured.rows} {measured.kind} rows"]


def _count(delegated: int, total: int, partitions: int) -> str:
    parts = "1 partition" if partitions == 1 else f"{partitions} partitions"
    return f"{delegated} of {total} operators on the GPU, {parts}"


def _line(finding: Finding) -> str:
    place = f" in {finding.layer}" if finding.layer else ""
    return (
        f"{finding.effect:<10} {finding.operator} #{finding.index}{place} ({finding.name}): {finding.reason}. "
        f"{finding.hint}"
    )

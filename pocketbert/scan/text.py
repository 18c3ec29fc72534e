"""A scan as text for people."""

from collections.abc import Iterator

from pocketbert.numerics.half import HALF_MAX
from pocketbert.scan.scan import Scan

# Findings shown, and consequences of each and harmless ones; --json has them all.
SHOWN, CONSEQUENCES = 12, 5
# So little headroom is marked: other rows may use it up.
TIGHT = 2.0


def as_text(scan: Scan) -> str:
    """The rows, the findings with their causes, what follows from them, what is harmless, the widest tensors."""
    return "\n".join(_lines(scan))


def _lines(scan: Scan) -> Iterator[str]:
    report = scan.ranges
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.rows.items())
    yield f"{report.path}: {report.tensors} float tensors and {report.constants} constants on {kinds} rows"
    yield from (f"assumed: {line}" for line in scan.said)
    yield ""
    for finding in report.roots[:SHOWN]:
        yield f"UNSAFE {finding}"
        after = [f for f in report.findings if f.follows == finding.tensor]
        if after:
            causes = list(dict.fromkeys(f"{f.cause}{f' of {f.layer}' if f.layer else ''}" for f in after))
            more = ", ..." if len(causes) > CONSEQUENCES else ""
            yield f"       {len(after)} tensors follow from it: {', '.join(causes[:CONSEQUENCES])}{more}"
    if len(report.roots) > SHOWN:
        yield f"       and {len(report.roots) - SHOWN} more: see --json"
    if scan.nonfinite:
        yield f"BROKEN {scan.nonfinite}"
    for finding in report.harmless[:CONSEQUENCES]:
        yield f"harmless {finding}; it is added to something larger"
    if len(report.harmless) > CONSEQUENCES:
        yield f"harmless and {len(report.harmless) - CONSEQUENCES} more: see --json"
    yield f"widest tensors (fp16 ends at {HALF_MAX:g})"
    for wide in report.widest:
        place = ", ".join(filter(None, (wide["cause"], wide["layer"])))
        tight = "TIGHT " if wide["headroom"] < TIGHT else ""
        yield f"  {tight}{wide['largest']:.4g}, {wide['headroom']:.3g}x below the limit: {wide['tensor']} ({place})"
    yield ""
    yield "safe in fp16 on these rows" if scan.safe else "not safe in fp16"

"""`pocketbert delegation FILE`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketbert.errors import ParamsError

if TYPE_CHECKING:
    from pocketbert.delegation.analyze import Delegation, Finding
    from pocketbert.runtimes.litert_gpu import Precision


def delegation(
    file: Annotated[Path, typer.Argument(help="A .tflite file, or the folder of a TFLite artifact.")],
    profile: Annotated[str, typer.Option(help="Rules of which delegate.")] = "litert-2.3",
    precision: Annotated[str, typer.Option(help="fp32 or fp16, in which the GPU computes.")] = "fp32",
    predict: Annotated[bool, typer.Option("--predict", help="Ask the rules alone; run nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Say which operators a GPU takes and why it refuses others, by rule and by running it on this machine's GPU.

    What the GPU computes is compared with the CPU: a model can be on the GPU whole, and wrong. Exit code 1 where an
    operator is refused or the result is not the CPU's; 9 where there is no GPU to ask.
    """
    from pocketbert.delegation.analyze import REL_DIFF_MAX, analyze
    from pocketbert.delegation.rules import PROFILES

    if profile not in PROFILES:
        raise ParamsError(f"there is no profile {profile!r}", f"Known: {', '.join(PROFILES)}.")
    if precision not in REL_DIFF_MAX:
        raise ParamsError(f"precision {precision!r} is unknown", f"Known: {', '.join(REL_DIFF_MAX)}.")
    asked: Precision = "fp16" if precision == "fp16" else "fp32"
    found = analyze(model_file(file), PROFILES[profile], precision=asked, measure=not predict)
    typer.echo(json.dumps(found.as_dict(), indent=1, allow_nan=False) if as_json else as_text(found))
    if not found.whole:
        raise typer.Exit(1)


def model_file(path: Path) -> Path:
    """The .tflite file itself; raises ParamsError where there is none."""
    if path.is_dir():
        from pocketbert.artifacts import read_artifact

        path = read_artifact(path).model_path
    if path.suffix != ".tflite" or not path.is_file():
        raise ParamsError(f"{path} is no .tflite file", "Name one, or the folder of a TFLite artifact.")
    return path


def as_text(found: "Delegation") -> str:
    """For people."""
    said, measured = found.prediction, found.measurement
    lines = [found.file, f"rules      {_count(said.delegated, said.total, len(said.parts[:1]))}, by {said.profile}"]
    if len(said.parts) > 1:
        lines.append(f"           the largest of {len(said.parts)} parts between refused operators")
    if measured:
        placed = measured.placement
        software = " (software: for proofs, not for times)" if placed.software else ""
        verdict = "as the CPU" if measured.right else "NOT what the CPU computes"
        lines += [
            f"runtime    {_count(measured.delegated, said.total, placed.partitions)}",
            f"adapter    {placed.adapter}{software}",
            f"result     {verdict}: largest difference {measured.rel_diff:.1e} of the spread, {measured.precision}",
        ]
        if not found.agreed:
            lines.append("disagreed  rules and runtime count differently: trust the runtime, and report the file")
    lines += [_line("refused", finding) for finding in said.refused]
    if measured:
        lines += [f"refused    by the runtime: {reason}" for reason in measured.placement.refused]
    lines += [_line("wrong", finding) for finding in said.hazards]
    lines.append("whole" if found.whole else "NOT whole")
    return "\n".join(lines)


def _count(delegated: int, total: int, partitions: int) -> str:
    parts = "1 partition" if partitions == 1 else f"{partitions} partitions"
    return f"{delegated} of {total} operators on the GPU, {parts}"


def _line(what: str, finding: "Finding") -> str:
    return f"{what:<10} {finding.operator} #{finding.index} {finding.name}: {finding.reason}. {finding.hint}"

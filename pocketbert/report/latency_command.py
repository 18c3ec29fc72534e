"""`pocketbert compare-latency A B`."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pocketbert.report.latency_runs import RunComparison


def compare_latency(
    a: Annotated[str, typer.Argument(metavar="A", help="The reference: an artifact, or a run's folder.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The artifact or run that is compared with it.")],
    device: Annotated[str, typer.Option(help="Device on which two artifacts are compared.")] = "local",
    results: Annotated[Path, typer.Option(help="Folder of the benchmark's results.")] = Path("results/benchmark"),
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Say whether B is faster than A, slower, or neither, and how sure that is.

    A and B are two artifacts of the last benchmark (`tflite-fp32`), or the folders of two benchmarks of one device
    (`results/benchmark/local`, and a copy of it). Exit code 0 whatever the answer is.
    """
    from pocketbert.report.latency_runs import compare_artifacts, compare_runs, read_run

    if all((Path(side) / "benchmark.json").is_file() for side in (a, b)):
        compared = compare_runs(read_run(Path(a)), read_run(Path(b)))
        text, document = "\n".join(_lines(compared)), compared.as_dict()
    else:
        found = compare_artifacts(read_run(results / device), a, b)
        text, document = f"{b} against {a} on {device}: {found}", asdict(found)
    typer.echo(json.dumps(document, ensure_ascii=False, indent=1) if as_json else text)


def _lines(compared: "RunComparison") -> Iterator[str]:
    yield f"{compared.device}: the second run against the first"
    for change in compared.changes:
        note = " (the same file)" if change.same_file else ""
        yield f"  {change.artifact}{note}: {change.comparison}"
    yield from (f"  differs too: {condition}" for condition in compared.conditions)
    if compared.missing:
        yield f"  measured in one of the runs only: {', '.join(compared.missing)}"

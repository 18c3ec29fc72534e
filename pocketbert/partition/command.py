"""`pocketbert memory FILE` and `pocketbert partition FILE`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pocketbert.partition.cuts import Part
    from pocketbert.partition.lifetime import Schedule
    from pocketbert.partition.manifest import PartsManifest
    from pocketbert.partition.needs import MemoryPlan

_Model = Annotated[Path, typer.Argument(help="A .tflite file, or the folder of a TFLite artifact.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON object.")]


def memory(
    file: _Model,
    max_memory_mb: Annotated[
        float | None, typer.Option(min=1.0, help="Say too into which parts it would be cut for this limit.")
    ] = None,
    as_json: _AsJson = False,
) -> None:
    """Say what a .tflite file needs in memory to run: weights and activations over a process without a model.

    Planned from the file, not run; docs/memory.md compares the plan with what was measured.
    """
    from pocketbert.delegation.command import model_file
    from pocketbert.partition.cuts import choose_parts, smallest_limit_mb
    from pocketbert.partition.lifetime import Schedule
    from pocketbert.partition.model import read_graph
    from pocketbert.partition.needs import plan_memory

    schedule = Schedule(read_graph(model_file(file)))
    plan, smallest = plan_memory(schedule), smallest_limit_mb(schedule)
    parts = choose_parts(schedule, max_memory_mb) if max_memory_mb is not None else []
    if as_json:
        described = [{"first": p.start, "last": p.end - 1, "need_bytes": p.need.total_bytes} for p in parts]
        document = {"path": str(schedule.graph.path), **plan.as_dict(), "smallest_limit_mb": smallest}
        typer.echo(json.dumps(document | ({"parts": described} if parts else {}), indent=1))
        return
    typer.echo(plan_text(plan, smallest))
    for line in parts_lines(schedule, parts):
        typer.echo(line)


def partition(
    file: _Model,
    max_memory_mb: Annotated[
        float,
        typer.Option(min=1.0, help="What each part may need beside the process itself, in MB of 1,000,000 bytes."),
    ],
    output: Annotated[Path, typer.Option(help="Folder to write; it must not exist, or be empty.")],
    as_json: _AsJson = False,
) -> None:
    """Cut a .tflite file into parts that are run in turn, with the same logits, bit by bit.

    The parts of an artifact are an artifact again: `pocketbert predict --model FOLDER` takes them.
    """
    from pocketbert.artifacts import read_artifact
    from pocketbert.delegation.command import model_file
    from pocketbert.partition.divide import divide, require_absent, write_artifact_in_parts, write_parts

    require_absent(output)
    path = model_file(file)
    division = divide(path, max_memory_mb)
    if (path.parent / "artifact.json").is_file() and (artifact := read_artifact(path.parent)).model_path == path:
        manifest = write_artifact_in_parts(artifact, division, output)
    else:
        manifest = write_parts(division, output)
    typer.echo(manifest.model_dump_json(indent=1) if as_json else manifest_text(manifest, output))


def plan_text(plan: "MemoryPlan", smallest_limit_mb: float) -> str:
    """For people, in MB."""
    need = plan.need
    rows = [
        ("file", plan.file_bytes, ""),
        ("weights in memory", need.weights_bytes, f"of {plan.stored_bytes / 1e6:.2f} MB stored"),
        (
            "activations",
            need.activations_bytes,
            f"largest at {plan.peak_step}; in one arena {plan.arena_bytes:,} bytes",
        ),
        ("inputs and outputs", need.handed_over_bytes, ""),
        ("engine", need.engine_bytes, "LiteRT beside any model"),
        ("need", need.total_bytes, "over a process without a model"),
    ]
    lines = [f"{name:<20}{size / 1e6:>10.2f} MB  {note}".rstrip() for name, size, note in rows]
    return "\n".join(
        [*lines, f"{'in parts':<20}{smallest_limit_mb:>10.2f} MB  the smallest limit that it can be cut for"]
    )


def parts_lines(schedule: "Schedule", parts: "list[Part]") -> list[str]:
    """A line a part."""
    steps = schedule.steps
    return [
        f"part {number:<3} {part.need.total_bytes / 1e6:>10.2f} MB  {part.end - part.start} steps, from "
        f"{steps[part.start].operator.kind}#{steps[part.start].operator.index}; hands over "
        f"{schedule.crossing_bytes(part.end):,} bytes"
        for number, part in enumerate(parts, 1)
    ]


def manifest_text(manifest: "PartsManifest", folder: Path) -> str:
    """For people."""
    lines = [
        f"{p.file}: {p.operators} operators, {p.size_bytes:,} bytes, needs {p.need_bytes / 1e6:.1f} MB"
        for p in manifest.parts
    ]
    whole = f"whole: {manifest.whole_need_bytes / 1e6:.1f} MB; in {len(manifest.parts)} parts: "
    return "\n".join([*lines, f"{whole}{manifest.largest_need_bytes / 1e6:.1f} MB, in {folder}"])

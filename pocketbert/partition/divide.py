"""Divide a .tflite file, or the artifact that it belongs to, into parts that fit a limit."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pocketbert.artifacts import COMPANIONS, PARTS_FILE, Artifact, write_artifact
from pocketbert.data.dataset import read_labels
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ParamsError
from pocketbert.partition.cuts import Part, choose_parts, smallest_limit_mb
from pocketbert.partition.lifetime import Schedule
from pocketbert.partition.manifest import HandedTensor, PartFile, PartsManifest, write_manifest
from pocketbert.partition.model import read_graph
from pocketbert.partition.needs import need_of
from pocketbert.partition.write import names_in, names_out, write_part


@dataclass(frozen=True)
class Division:
    """What is to be written."""

    schedule: Schedule
    parts: list[Part]
    max_memory_mb: float


def divide(path: Path, max_memory_mb: float) -> Division:
    """Choose the parts of a file; raises ParamsError (no division fits), CheckpointError and ExportError."""
    schedule = Schedule(read_graph(path))
    return Division(schedule, choose_parts(schedule, max_memory_mb), max_memory_mb)


def write_parts(division: Division, folder: Path) -> PartsManifest:
    """Write the parts and parts.json into an empty folder."""
    schedule, count = division.schedule, len(division.parts)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, part in enumerate(division.parts, 1):
        name = f"part-{number:0{len(str(count))}}-of-{count}.tflite"
        md5 = write_part(schedule, part.start, part.end, folder / name)
        files.append(
            PartFile(
                file=name,
                md5=md5,
                size_bytes=(folder / name).stat().st_size,
                operators=sum(1 + len(step.prepared) for step in schedule.steps[part.start : part.end]),
                need_bytes=part.need.total_bytes,
                inputs=list(names_in(schedule, part.start, part.end).values()),
                outputs=_handed(schedule, names_out(schedule, part.start, part.end)),
            )
        )
    with schedule.graph.path.open("rb") as stream:
        source_md5 = hashlib.file_digest(stream, "md5").hexdigest()
    manifest = PartsManifest(
        source_md5=source_md5,
        max_memory_mb=division.max_memory_mb,
        whole_need_bytes=need_of(schedule, 0, len(schedule.steps)).total_bytes,
        smallest_limit_mb=smallest_limit_mb(schedule),
        handed_over_bytes=max(schedule.crossing_bytes(part.end) for part in division.parts),
        inputs=_handed(schedule, schedule.graph.inputs),
        parts=files,
    )
    write_manifest(folder, manifest)
    return manifest


def write_artifact_in_parts(artifact: Artifact, division: Division, folder: Path) -> PartsManifest:
    """Write an artifact of the same name, tokenizer and labels whose model is in parts; in one step."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        manifest = write_parts(division, temporary)
        for name in COMPANIONS:
            if (artifact.folder / name).exists():
                shutil.copyfile(artifact.folder / name, temporary / name)
        card = artifact.card.model_copy(update={"model_file": PARTS_FILE})
        write_artifact(temporary, card, read_labels(artifact.folder), TextEncoder(artifact.folder))
        try:
            temporary.rename(folder)
        except OSError:
            # Another process has cut the same at the same time.
            if not (folder / PARTS_FILE).is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def require_absent(folder: Path) -> None:
    """Raise ParamsError where a folder to be written holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ParamsError(f"{folder} exists already", "Name another folder, or remove it.")


def _handed(schedule: Schedule, names: dict[int, str]) -> list[HandedTensor]:
    tensors = schedule.graph.tensors
    return [
        HandedTensor(name=name, dtype=tensors[t].dtype.lower(), shape=tensors[t].shape) for t, name in names.items()
    ]

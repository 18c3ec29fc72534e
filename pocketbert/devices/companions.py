"""The files that a model needs beside it, by the names that it knows them by."""

from pathlib import Path
from typing import Any

from pocketbert.artifacts import COMPANIONS, Artifact


def find_companions(artifact: Artifact) -> dict[str, Path]:
    """Host tables, parts, and an ONNX file's external data, as paths below its folder; raises CheckpointError."""
    names = [name for name in COMPANIONS if (artifact.folder / name).is_file()]
    names += [str(part["file"]) for part in read_parts(artifact)]
    if artifact.card.format == "onnx":
        from pocketbert.inspection.onnx_file import external_files

        names += [file.relative_to(artifact.folder).as_posix() for file in external_files(artifact.model_path)]
    return {name: artifact.folder / name for name in names}


def read_parts(artifact: Artifact) -> list[dict[str, Any]]:
    """The manifest's entries of a model in parts; none of a whole one. Raises CheckpointError."""
    if not artifact.in_parts:
        return []
    from pocketbert.partition.manifest import read_manifest

    return [part.model_dump(mode="json") for part in read_manifest(artifact.model_path).parts]

"""parts.json: the parts of a model in the order in which they run, and what is handed from one to the next."""

from pathlib import Path

from pydantic import ValidationError

from pocketbert.artifacts import PARTS_FILE
from pocketbert.errors import CheckpointError
from pocketbert.params import Section


class HandedTensor(Section):
    """A tensor by the name that the signatures of the parts give it; static shape [1, ...]."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class PartFile(Section):
    """One .tflite file."""

    file: str
    md5: str
    size_bytes: int
    operators: int
    # Planned bytes in memory over the process without a model.
    need_bytes: int
    inputs: list[str]
    outputs: list[HandedTensor]


class PartsManifest(Section):
    """A model in parts."""

    # The file that was cut, and the limit that it was cut for.
    source_md5: str
    max_memory_mb: float
    whole_need_bytes: int
    smallest_limit_mb: float
    # Of one row, where most of it lives between two parts.
    handed_over_bytes: int
    inputs: list[HandedTensor]
    parts: list[PartFile]

    @property
    def largest_need_bytes(self) -> int:
        """Planned bytes of the part that needs most."""
        return max(part.need_bytes for part in self.parts)

    @property
    def size_bytes(self) -> int:
        """Bytes of all parts on disk."""
        return sum(part.size_bytes for part in self.parts)


def write_manifest(folder: Path, manifest: PartsManifest) -> None:
    """Write parts.json, the last thing that is written into a folder of parts."""
    (folder / PARTS_FILE).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_manifest(path: Path) -> PartsManifest:
    """Read a parts.json; raises CheckpointError where it or one of its parts is missing or cut short."""
    try:
        manifest = PartsManifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is no list of parts: {reason}", "Run `pocketbert partition` again.") from error
    for part in manifest.parts:
        file = path.parent / part.file
        size = file.stat().st_size if file.is_file() else None
        if size != part.size_bytes:
            found = "is missing" if size is None else f"has {size} bytes instead of {part.size_bytes}"
            raise CheckpointError(f"{file} {found}", "Copy the folder again, or run `pocketbert partition` again.")
    return manifest

"""Make an artifact fit a device's memory: as it is where it fits, in parts where it does not."""

import logging
from pathlib import Path

from pocketbert.artifacts import PARTS_FILE, Artifact, read_artifact
from pocketbert.devices.inventory import INVENTORY_PATH, read_inventory
from pocketbert.errors import ExportError, ParamsError
from pocketbert.partition.manifest import read_manifest
from pocketbert.stage import STATE_FOLDER

_log = logging.getLogger("pocketbert")


def fit_memory(artifact: Artifact, max_memory_mb: float | None, cache: Path = STATE_FOLDER / "parts") -> Artifact:
    """The artifact itself where there is no limit or it fits, else the same in parts, from `cache` where they are.

    Only .tflite files can be cut; other formats are returned as they are, with a warning where the file alone is
    larger than the limit. Raises ParamsError where not even parts fit, CheckpointError and ExportError.
    """
    if max_memory_mb is None or artifact.in_parts:
        return artifact
    if artifact.card.format != "tflite":
        if artifact.size_bytes > 1e6 * max_memory_mb:
            _log.warning(
                "%s: only .tflite files are cut into parts; %.1f MB of weights run under a limit of %g MB",
                artifact.name, artifact.size_bytes / 1e6, max_memory_mb,
            )  # fmt: skip
        return artifact
    folder = cache / f"{artifact.md5()}-{max_memory_mb:g}"
    if not (folder / PARTS_FILE).is_file():
        from pocketbert.partition.divide import divide, write_artifact_in_parts

        division = divide(artifact.model_path, max_memory_mb)
        if len(division.parts) == 1:
            return artifact
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_artifact_in_parts(artifact, division, folder)
    manifest = read_manifest(folder / PARTS_FILE)
    _log.info(
        "%s needs %.1f MB, the limit is %g MB: it runs in %d parts of up to %.1f MB", artifact.name,
        manifest.whole_need_bytes / 1e6, max_memory_mb, len(manifest.parts), manifest.largest_need_bytes / 1e6,
    )  # fmt: skip
    return read_artifact(folder)


def memory_refusal(artifact: Artifact, max_memory_mb: float | None) -> str | None:
    """Why a .tflite artifact can be run under the limit neither whole nor in parts; None where it can."""
    if max_memory_mb is None or artifact.in_parts or artifact.card.format != "tflite":
        return None
    from pocketbert.partition.divide import divide

    try:
        divide(artifact.model_path, max_memory_mb)
    except (ParamsError, ExportError) as error:
        return str(error)
    return None


def local_memory_limit_mb(path: Path = INVENTORY_PATH) -> float | None:
    """The memory limit of the machine that runs this: of the `kind: local` device; None where there is none.

    Without a devices.yaml there is no limit; raises ParamsError where it is not valid.
    """
    if not path.exists():
        return None
    limits = [d.limits.max_memory_mb for d in read_inventory(path).devices.values() if d.kind == "local"]
    return min((limit for limit in limits if limit is not None), default=None)

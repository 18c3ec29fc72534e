"""What a pipeline state is, and what it has to show: read from the files that its stages wrote."""

import csv
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketbert.errors import TrackingError
from pocketbert.measurement import measurement_name
from pocketbert.params import CheckpointStudent, CutStudent, Params, read_yaml
from pocketbert.tracking.flatten import safe_key, split_summary

_LOCK = Path("dvc.lock")
_METRICS = Path("metrics")
_PROVENANCE = Path("provenance")
# They tell how a result came about and how long it took; the same pipeline state may have many of them.
_NOT_STATE = ("provenance/", "metrics/")
_UNPUBLISHED = "publish"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageRecord:
    """Which execution made a stage's present outputs (this one, or one of long ago: they may be cached)."""

    stage: str
    execution_id: str


@dataclass(frozen=True)
class ChosenArtifact:
    """What the report chose by `quantize.objective`; `artifact` is None where nothing met it."""

    artifact: str | None
    reason: str


def read_choice(report: Path) -> ChosenArtifact | None:
    """The report's choice.json; None for a report that holds none."""
    path = report / "choice.json"
    if not path.is_file():
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    return ChosenArtifact(document["chosen"], document["reason"])


def state_hash(params: Params, report: Path) -> tuple[str, str]:
    """(64 hex digits, what was hashed) of the pipeline's state.

    Commands, dependencies, parameters and outputs of every stage in dvc.lock other than `publish`, without
    provenance and metrics files. Without a dvc.lock, the files of the report.
    """
    digest = hashlib.sha256(json.dumps(state_params(params), sort_keys=True).encode())
    if _LOCK.is_file():
        digest.update(json.dumps(_without_noise(locked_stages()), sort_keys=True, default=str).encode())
        return digest.hexdigest(), str(_LOCK)
    _log.warning("there is no dvc.lock here: the run is keyed by the content of %s", report)
    digest.update(tree_md5(report).encode())
    return digest.hexdigest(), str(report)


def locked_stages() -> dict[str, Any]:
    """The stages of dvc.lock other than `publish`, whose own entry changes when it has run."""
    document = read_yaml(_LOCK)
    stages = document.get("stages") if isinstance(document, dict) else None
    if not isinstance(stages, dict):
        raise TrackingError(f"{_LOCK} has no stages", "Write it again with `dvc repro`.")
    return {name: entry for name, entry in stages.items() if name != _UNPUBLISHED}


def state_params(params: Params) -> dict[str, Any]:
    """Every parameter but those of `publish`, which say where a run is kept and not what it is."""
    document = params.model_dump(mode="json", by_alias=True)
    del document[_UNPUBLISHED]
    return document


def student_summary(params: Params) -> str:
    """A student in a few characters, for the name of a run."""
    student = params.distill.student
    if isinstance(student, CutStudent):
        layers = student.layers if isinstance(student.layers, int) else "_".join(map(str, student.layers))
        return f"cut-{layers}"
    return Path(student.checkpoint).name if isinstance(student, CheckpointStudent) else student.family


def headline_metrics(params: Params, report: Path) -> tuple[dict[str, float], dict[str, str]]:
    """(numbers, texts): `<stage>.<metric>` of every stage and `<measurement>.<device>.<column>` of every row."""
    numbers: dict[str, float] = {}
    texts: dict[str, str] = {}
    for name, path in metrics_files(params).items():
        stage = name.removesuffix(".json").replace("/", ".")
        found, words = split_summary(json.loads(path.read_text(encoding="utf-8")), f"{stage}.")
        numbers |= found
        texts |= words
    with (report / "results.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            numbers |= _row_metrics(row)
    return numbers, texts


def stage_records(params: Params) -> list[StageRecord]:
    """The executions behind the present outputs, from provenance/."""
    records = []
    for path in _json_files(_PROVENANCE, params):
        document = json.loads(path.read_text(encoding="utf-8"))
        records.append(StageRecord(document["stage"], document["execution_id"]))
    return records


def metrics_files(params: Params) -> dict[str, Path]:
    """Path inside metrics/ and file."""
    return {path.relative_to(_METRICS).as_posix(): path for path in _json_files(_METRICS, params)}


def provenance_files(params: Params) -> dict[str, Path]:
    """Path inside provenance/ and file."""
    return {path.relative_to(_PROVENANCE).as_posix(): path for path in _json_files(_PROVENANCE, params)}


def tree_md5(path: Path) -> str:
    """MD5 over a file, or over the names and contents of a folder's files."""
    digest = hashlib.md5(usedforsecurity=False)
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        digest.update(f"{file.relative_to(path).as_posix()}:".encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "md5").digest())
    return digest.hexdigest()


def _without_noise(stages: Mapping[str, Any]) -> dict[str, Any]:
    def kept(entries: list[Any]) -> list[Any]:
        return [entry for entry in entries if not str(entry.get("path", "")).startswith(_NOT_STATE)]

    return {
        name: {key: kept(value) if key in ("deps", "outs") else value for key, value in entry.items()}
        for name, entry in stages.items()
    }


def _json_files(folder: Path, params: Params) -> Iterator[Path]:
    """JSON files below a folder; those of `publish` and of recipes that are no more in params.yaml left out."""
    for path in sorted(folder.rglob("*.json")):
        stage, *instance = path.relative_to(folder).with_suffix("").parts
        gone = stage == "quantize" and "/".join(instance) not in params.quantize.recipes
        if stage != _UNPUBLISHED and not gone and not path.name.startswith("."):
            yield path


def _row_metrics(row: Mapping[str, str]) -> dict[str, float]:
    numbers = {}
    name = measurement_name(row["artifact"], row.get("gpu_precision") or None)
    for column, text in row.items():
        if column in ("artifact", "device") or not text:
            continue
        try:
            numbers[safe_key(f"{name}.{row['device']}.{column}")] = float(text)
        except ValueError:
            # A column of words, such as the runtime's name: the table itself is among the artifacts.
            continue
    return numbers

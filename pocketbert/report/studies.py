"""The studies of sensitivity, as the stage `quantize` wrote them."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter

from pocketbert.report.sources import Record, parse_json


class TrialFigures(Record):
    """What quantizing one part of a model alone did (results/sensitivity)."""

    name: str = ""
    operations: int = 0
    logit_mean_rel_diff: float | None
    logit_rel_diff: float | None
    accuracy_drop: float | None
    latency_gained_ms: float | None
    error: str | None


class ExcludedCell(Record):
    """The operations of one kind in one layer."""

    name: str
    operations: int
    excluded: bool


class SensitivityStudy(Record):
    """What a recipe with `exclude: auto` found; layers and kinds are ranked, the most harmful one first."""

    rows: int
    runs: int
    everything: TrialFigures
    layers: list[TrialFigures]
    kinds: list[TrialFigures]
    cells: list[ExcludedCell]
    chosen: TrialFigures
    exclude: list[str]
    reason: str


def read_studies(folder: Path, artifacts: Iterable[str]) -> dict[str, SensitivityStudy]:
    """The studies of results/sensitivity, by artifact; a recipe without `exclude: auto` has none."""
    studies = {}
    for name in artifacts:
        path = folder / f"{name}.json"
        study = parse_json(TypeAdapter(SensitivityStudy | None), path) if path.is_file() else None
        if study is not None:
            studies[name] = study
    return studies

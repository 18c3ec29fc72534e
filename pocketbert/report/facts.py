"""Everything that the page and the card say, worked out once from the files of the other stages."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocketbert.data.dataset import LabelSet, read_labels
from pocketbert.errors import PocketBertError
from pocketbert.params import Objective, ReportParams
from pocketbert.report.budgets import Verdict, check_budgets
from pocketbert.report.choice import Choice, choose
from pocketbert.report.delegation import Delegations, read_delegations
from pocketbert.report.layers import LayerProofs, read_layers
from pocketbert.report.pareto import best_rows
from pocketbert.report.sources import (
    Benchmark,
    EvaluatedRow,
    Proof,
    Sources,
    read_benchmarks,
    read_curve,
    read_evaluated,
    read_json,
    read_predictions,
    read_proof,
    read_rounds,
    read_telemetry,
)
from pocketbert.report.statistics import Confusion, PairedErrors, paired_errors, worst_confusion
from pocketbert.report.studies import SensitivityStudy, read_studies
from pocketbert.report.table import STUDENT, TEACHER, ResultRow, join_rows

_FOLDERS = {TEACHER: "models/teacher", STUDENT: "models/classifier", "onnx-fp32": "models/onnx",
            "tflite-fp32": "models/tflite"}  # fmt: skip
# Written by this project's own generator; everything else is somebody's data.
_SYNTHETIC = ("data/raw/commodities.csv", "data/raw/tiny.csv")


@dataclass(frozen=True)
class Curves:
    """What a training stage recorded: `curve` by epoch, `loss` by step; empty where it did not train."""

    stage: str
    curve: Mapping[str, Sequence[float]]
    loss: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Facts:
    """The report's content, not yet laid out."""

    rows: list[ResultRow]
    benchmarks: list[Benchmark]
    # Raw latencies in ms by device, artifact (with "@gpu-..." on a GPU) and round.
    latencies: dict[str, dict[str, list[list[float]]]]
    # Sensors' readings by device and column.
    telemetry: dict[str, dict[str, list[float | None]]]
    # (measurement, device) of the rows that no other one beats.
    best: set[tuple[str, str]]
    verdicts: list[Verdict]
    choice: Choice
    # The chosen artifact's row on the objective's device.
    headline: ResultRow | None
    # The model whose errors are shown: the headline's, else the student.
    shown: str
    confusion: Confusion | None
    paired: PairedErrors | None
    labels: LabelSet
    proof: Proof
    layers: LayerProofs
    data: dict[str, Any]
    architecture: dict[str, Any]
    curves: list[Curves]
    studies: dict[str, SensitivityStudy]
    delegations: Delegations | None

    def row(self, artifact: str, device: str) -> ResultRow | None:
        """The row of an artifact on a device's processor."""
        return next((r for r in self.rows if (r.measurement, r.device) == (artifact, device)), None)

    def speed_up(self, row: ResultRow, over: str = TEACHER) -> float | None:
        """How many times faster a row's median is than another artifact's on the same device."""
        other = self.row(over, row.device)
        if other is None or other.latency_p50_ms is None or row.latency_p50_ms is None:
            return None
        return other.latency_p50_ms / row.latency_p50_ms

    @property
    def failed(self) -> list[Verdict]:
        """Budgets that are not kept."""
        return [verdict for verdict in self.verdicts if not verdict.passed]

    @property
    def source(self) -> str:
        """Where the data came from."""
        source = self.data.get("source", {})
        return ", ".join(dict.fromkeys(source.values())) if isinstance(source, dict) else str(source)

    @property
    def synthetic(self) -> bool:
        """Whether the data is this project's own generator's."""
        return self.source in _SYNTHETIC


def gather_facts(params: ReportParams, objective: Objective, sources: Sources) -> Facts:
    """Read all sources; raises PocketBertError for a file that is missing, broken or of another run."""
    labels = read_labels(sources.prepared)
    benchmarks = read_benchmarks(sources.benchmarked)
    evaluated, proof = read_evaluated(sources.evaluated), read_proof(sources.validated)
    _require_same_files(proof, evaluated)
    rows = join_rows(evaluated, benchmarks)
    choice = choose(objective, rows, read_predictions(sources.evaluated, "valid_predictions.parquet"))
    headline = next((r for r in rows if (r.measurement, r.device) == (choice.measurement, objective.device)), None)
    shown = headline.artifact if headline else STUDENT
    predictions = read_predictions(sources.evaluated)
    confusion = paired = None
    if labels.problem_type == "single_label":
        confusion = worst_confusion(predictions["label"], predictions[shown], params.worst_classes)
        paired = paired_errors(predictions["label"], predictions[TEACHER], predictions[shown])
    return Facts(
        rows=rows,
        benchmarks=benchmarks,
        latencies={b.name: read_rounds(sources.benchmarked / b.name) for b in benchmarks},
        telemetry={b.name: read_telemetry(sources.benchmarked / b.name) for b in benchmarks},
        best=best_rows(rows),
        verdicts=check_budgets(params.budgets, rows),
        choice=choice,
        headline=headline,
        shown=shown,
        confusion=confusion,
        paired=paired,
        labels=labels,
        proof=proof,
        layers=read_layers(sources.validated),
        data=read_json(sources.prepared / "report.json"),
        architecture=_architecture(read_json(sources.classifier / "config.json")),
        curves=[
            Curves(stage, read_curve(folder / "curve.csv"), read_curve(folder / "loss.csv"))
            for stage, folder in sources.curves.items()
        ],
        studies=read_studies(sources.sensitivity, [row.artifact for row in evaluated]),
        delegations=read_delegations(sources.delegated),
    )


def model_folder(artifact: str) -> str:
    """Where the pipeline keeps an artifact."""
    return _FOLDERS.get(artifact, f"models/quantized/{artifact}")


def flatten(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as (dotted key, value)."""
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _require_same_files(proof: Proof, evaluated: Sequence[EvaluatedRow]) -> None:
    """A proof of another file is no proof."""
    md5 = {row.artifact: row.md5 for row in evaluated}
    for name, export in proof.artifacts.items():
        if md5.get(name) != export.md5:
            raise PocketBertError(
                f"{name} was proven as md5 {export.md5} and evaluated as {md5.get(name, 'nothing')}",
                "Run `dvc repro`: the results are of different files.",
            )


def _architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of config.json that describe the student."""
    encoder: Mapping[str, Any] = config.get("encoder", {})
    keys = {
        "model_type": "encoder", "num_hidden_layers": "layers", "n_layers": "layers", "hidden_size": "hidden size",
        "dim": "hidden size", "num_attention_heads": "attention heads", "n_heads": "attention heads",
        "intermediate_size": "feed-forward size", "hidden_dim": "feed-forward size", "vocab_size": "vocabulary",
        "max_position_embeddings": "positions",
    }  # fmt: skip
    facts: dict[str, Any] = {name: encoder[key] for key, name in keys.items() if key in encoder}
    head: Mapping[str, Any] = config.get("head", {})
    return facts | {"pooling": config.get("pooling")} | {f"head {key}": value for key, value in head.items()}

"""The files of other stages that the report reads, each checked as it is read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pocketbert.errors import PocketBertError
from pocketbert.measurement import measurement_name


@dataclass(frozen=True)
class Sources:
    """Folders of the stages before; `curves` maps a training stage to its plots folder."""

    prepared: Path
    classifier: Path
    validated: Path
    evaluated: Path
    benchmarked: Path
    sensitivity: Path
    curves: Mapping[str, Path]
    delegated: Path | None = None


class Record(BaseModel):
    """What another stage wrote."""

    # Other stages may write more than the report shows; NaN is refused, unknown is null.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class EvaluatedRow(Record):
    """One artifact of results/evaluate/evaluate.json."""

    artifact: str
    format: str
    recipe: str
    precision: str
    md5: str
    rows: int
    accuracy: float
    macro_f1: float
    ece: float
    # Percentage points against the teacher.
    accuracy_drop: float
    valid_rows: int
    valid_accuracy: float
    valid_accuracy_drop: float
    # The model file by part, and the tokens that its tokenizer knows.
    embeddings_bytes: int | None = None
    encoder_bytes: int | None = None
    head_bytes: int | None = None
    other_bytes: int | None = None
    vocabulary_tokens: int | None = None


class MeasuredRow(Record):
    """One artifact of a results/benchmark/<device>/benchmark.json."""

    artifact: str
    md5: str
    runtime: str | None
    accelerator: str | None
    sequence_length: int
    threads: int
    size_bytes: int
    latency_p50_ms: float | None
    latency_p90_ms: float | None
    latency_p50_ci_ms: tuple[float, float] | None
    runs: int
    memory_baseline_bytes: int | None
    memory_peak_bytes: int | None
    cpu_percent: float | None
    power_mean_mw: float | None
    temperature_start_c: float | None
    temperature_end_c: float | None
    total_ops: int | None
    delegated_ops: int | None
    partitions: int | None
    logit_max_abs_diff: float | None
    logit_rel_diff: float | None
    agreement: float | None
    error: str | None
    gpu_precision: str | None = None
    device_accuracy: float | None = None
    device_accuracy_rows: int | None = None
    latency_p99_ms: float | None = None
    temperature_max_c: float | None = None
    throttled: bool | None = None

    @property
    def measurement(self) -> str:
        """The row's name on its device (`measurement_name`)."""
        return measurement_name(self.artifact, self.gpu_precision)


class Benchmark(Record):
    """One device's benchmark.json."""

    device: dict[str, str | int | float | None]
    harness: dict[str, str | int]
    # Sensor -> the path that answered, where a device has told.
    telemetry_sources: dict[str, str | None] = {}
    measured_at: str
    rows: list[MeasuredRow]

    @property
    def name(self) -> str:
        """The device's name in the inventory."""
        return str(self.device["name"])


class LogitFigures(Record):
    """Differences of an export's logits from the student's in torch."""

    max_abs_diff: float
    mean_abs_diff: float
    max_rel_diff: float
    agreement: float
    rows: int


class TensorFigures(Record):
    """What became of the student's parameters in an exported file."""

    compared: int
    equal: int


class ProvenExport(Record):
    """One artifact of results/validate/validate.json."""

    md5: str
    logits: LogitFigures
    tensors: TensorFigures


class Proof(Record):
    """validate.json: the proof that the unquantized exports are the student; `probes` counts the rows by kind."""

    params: dict[str, float | int]
    probes: dict[str, int]
    artifacts: dict[str, ProvenExport]


def read_proof(folder: Path) -> Proof:
    """The proof of the exports; raises PocketBertError."""
    return parse_json(TypeAdapter(Proof), folder / "validate.json")


def read_evaluated(folder: Path) -> list[EvaluatedRow]:
    """The rows of evaluate.json, the teacher first; raises PocketBertError."""
    return parse_json(TypeAdapter(list[EvaluatedRow]), folder / "evaluate.json")


def read_benchmarks(folder: Path) -> list[Benchmark]:
    """Every device's benchmark.json, by name; raises PocketBertError where there is none."""
    paths = sorted(folder.glob("*/benchmark.json"))
    if not paths:
        raise PocketBertError(f"{folder} holds no device's benchmark.json", "Run `dvc repro benchmark`.")
    return [read_benchmark(path.parent) for path in paths]


def read_benchmark(folder: Path) -> Benchmark:
    """One device's benchmark.json; raises PocketBertError."""
    benchmark: Benchmark = parse_json(TypeAdapter(Benchmark), folder / "benchmark.json")
    return benchmark


def read_json(path: Path) -> Any:
    """A JSON file; raises PocketBertError where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PocketBertError(f"{path} cannot be read: {error}", "Run `dvc repro` to build it again.") from error


def read_rounds(folder: Path) -> dict[str, list[list[float]]]:
    """Raw latencies in milliseconds of a device's folder, by artifact and round, in the order of the file."""
    table = _read_parquet(folder / "latencies.parquet")
    names, rounds, values = (table[column].to_pylist() for column in ("artifact", "round", "latency_ms"))
    by_round: dict[str, dict[int, list[float]]] = {}
    for name, number, value in zip(names, rounds, values, strict=True):
        by_round.setdefault(name, {}).setdefault(number, []).append(value)
    return {name: [runs for _, runs in sorted(numbered.items())] for name, numbered in by_round.items()}


def read_telemetry(folder: Path) -> dict[str, list[float | None]]:
    """Sensors' readings of a device's folder by column, `at_s` first; {} where nothing was recorded."""
    path = folder / "telemetry.parquet"
    if not path.is_file():
        return {}
    columns = _read_parquet(path).to_pydict()
    return {name: values for name, values in columns.items() if name not in ("artifact", "round")}


def read_predictions(folder: Path, name: str = "predictions.parquet") -> dict[str, list[Any]]:
    """Columns of predictions.parquet: `label` and one an artifact, class indices (lists of them: multi-label)."""
    return _read_parquet(folder / name).to_pydict()


def read_curve(path: Path) -> dict[str, list[float]]:
    """A CSV of numbers by column, an empty cell as NaN; {} where nothing was recorded."""
    import pandas as pd

    if not path.is_file() or not path.read_text(encoding="utf-8").strip():
        return {}
    frame = pd.read_csv(path)
    return {str(name): frame[name].astype(float).tolist() for name in frame.columns} if len(frame) else {}


def parse_json(adapter: TypeAdapter[Any], path: Path) -> Any:
    """A JSON file, validated; raises PocketBertError that names the first wrong field."""
    document = read_json(path)
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PocketBertError(f"{path}: {where}: {first['msg']}", "Run `dvc repro` to build it again.") from error


def _read_parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise PocketBertError(f"{path} cannot be read: {error}", "Run `dvc repro` to build it again.") from error

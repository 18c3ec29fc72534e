"""The results table: one row an artifact and device, accuracy and latency joined by the MD5 of the model file."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pocketbert.errors import PocketBertError
from pocketbert.measurement import measurement_name
from pocketbert.report.sources import Benchmark, EvaluatedRow, MeasuredRow

TEACHER, STUDENT = "teacher", "student"

# The first 24 columns are a contract with whoever reads results.csv; new ones go to the end.
COLUMNS = (
    "artifact", "format", "recipe", "device", "runtime", "accelerator", "precision", "sequence_length", "threads",
    "size_bytes", "accuracy", "macro_f1", "accuracy_drop", "logit_max_abs_diff", "logit_rel_diff", "latency_p50_ms",
    "latency_p90_ms", "memory_peak_bytes", "cpu_percent", "power_mean_mw", "delegated_ops", "total_ops", "partitions",
    "md5",
    "ece", "agreement", "test_rows", "latency_p50_ci_low_ms", "latency_p50_ci_high_ms", "runs",
    "memory_baseline_bytes", "temperature_start_c", "temperature_end_c", "error",
    "valid_rows", "valid_accuracy", "valid_accuracy_drop",
    "embeddings_bytes", "encoder_bytes", "head_bytes", "other_bytes", "vocabulary_tokens",
    "gpu_precision", "device_accuracy", "device_accuracy_rows", "latency_p99_ms", "temperature_max_c", "throttled",
)  # fmt: skip


class ResultRow(BaseModel):
    """One line of results.csv; units stand in the names, None is unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    artifact: str
    format: str
    recipe: str
    device: str
    runtime: str | None
    accelerator: str | None
    precision: str
    sequence_length: int
    threads: int
    size_bytes: int
    accuracy: float
    macro_f1: float
    # Percentage points against the teacher.
    accuracy_drop: float
    logit_max_abs_diff: float | None
    logit_rel_diff: float | None
    latency_p50_ms: float | None
    latency_p90_ms: float | None
    memory_peak_bytes: int | None
    cpu_percent: float | None
    power_mean_mw: float | None
    delegated_ops: int | None
    total_ops: int | None
    partitions: int | None
    md5: str
    ece: float
    agreement: float | None
    test_rows: int
    latency_p50_ci_low_ms: float | None
    latency_p50_ci_high_ms: float | None
    runs: int | None
    memory_baseline_bytes: int | None
    temperature_start_c: float | None
    temperature_end_c: float | None
    error: str | None
    # By these artifacts are chosen; the figures above are of the test rows.
    valid_rows: int
    valid_accuracy: float
    valid_accuracy_drop: float
    # Add up to size_bytes; "other" is the graph itself and what no rule can place.
    embeddings_bytes: int | None
    encoder_bytes: int | None
    head_bytes: int | None
    other_bytes: int | None
    vocabulary_tokens: int | None
    # What a GPU computed in; None on the processor.
    gpu_precision: str | None
    # By the logits that the device itself gave, over the first rows of the test split that it measured with.
    device_accuracy: float | None
    device_accuracy_rows: int | None
    latency_p99_ms: float | None
    temperature_max_c: float | None
    throttled: bool | None

    @property
    def measurement(self) -> str:
        """The row's name on its device (`measurement_name`)."""
        return measurement_name(self.artifact, self.gpu_precision)


def join_rows(evaluated: Sequence[EvaluatedRow], benchmarks: Iterable[Benchmark]) -> list[ResultRow]:
    """One row an artifact x device, devices one after another, artifacts in the order of the evaluation.

    Raises PocketBertError where a measured file has no accuracy (a latency without a proof), and where an
    evaluated one was not measured.
    """
    by_name = {row.artifact: row for row in evaluated}
    rows = []
    for benchmark in benchmarks:
        measured: dict[str, list[MeasuredRow]] = {}
        for row in benchmark.rows:
            # A file may be measured on a device's processor and on its GPU.
            measured.setdefault(row.artifact, []).append(row)
            if row.artifact not in by_name or by_name[row.artifact].md5 != row.md5:
                raise PocketBertError(
                    f"{row.artifact} (md5 {row.md5}) was measured on {benchmark.name} but its accuracy is unknown: "
                    "a latency without the accuracy of that very file is no result",
                    "Run `dvc repro`; delete the folder of a device that is no longer in devices.yaml.",
                )
        for proven in evaluated:
            if proven.artifact not in measured:
                raise PocketBertError(
                    f"{proven.artifact} was evaluated but not measured on {benchmark.name}",
                    "Run `dvc repro`; delete the folder of a device that is no longer in devices.yaml.",
                )
            rows += [_join(proven, row, benchmark.name) for row in measured[proven.artifact]]
    return rows


def _join(proven: EvaluatedRow, measured: MeasuredRow, device: str) -> ResultRow:
    low, high = measured.latency_p50_ci_ms or (None, None)
    own = measured.model_dump(exclude={"latency_p50_ci_ms"})
    own["runs"] = measured.runs or None
    return ResultRow(
        **proven.model_dump(exclude={"rows"}) | own,
        device=device,
        test_rows=proven.rows,
        latency_p50_ci_low_ms=low,
        latency_p50_ci_high_ms=high,
    )


def write_csv(rows: Iterable[ResultRow], path: Path) -> None:
    """Write results.csv; unknown is an empty cell, numbers are not rounded."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.model_dump() for row in rows)

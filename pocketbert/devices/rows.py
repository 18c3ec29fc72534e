"""One row of benchmark.json: what was measured of one artifact on one device, with the proof that it was the model."""

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import Split
from pocketbert.devices.agent.litert_log import is_software
from pocketbert.devices.base import Answer, Sample
from pocketbert.devices.samples import summarise_samples
from pocketbert.devices.statistics import summarise_latencies
from pocketbert.devices.targets import Target
from pocketbert.errors import ProofError
from pocketbert.numerics.agreement import decision_agreement
from pocketbert.numerics.logits import LogitComparison, compare_logits
from pocketbert.params import BenchmarkParams, Section

# An artifact that disagrees with its source on most real rows is another model, and its latency says nothing.
AGREEMENT_MIN = 0.5


class BenchmarkRow(Section):
    """Units stand in the names; None is unknown. `error` says why a row has no figures."""

    artifact: str
    md5: str
    format: str
    recipe: str
    precision: str
    sequence_length: int
    threads: int
    size_bytes: int
    runtime: str | None = None
    accelerator: str | None = None
    latency_p50_ms: float | None = None
    latency_p90_ms: float | None = None
    latency_p50_ci_ms: tuple[float, float] | None = None
    runs: int = 0
    memory_baseline_bytes: int | None = None
    memory_peak_bytes: int | None = None
    cpu_percent: float | None = None
    power_mean_mw: float | None = None
    temperature_start_c: float | None = None
    temperature_end_c: float | None = None
    total_ops: int | None = None
    delegated_ops: int | None = None
    partitions: int | None = None
    logit_max_abs_diff: float | None = None
    logit_rel_diff: float | None = None
    agreement: float | None = None
    # Added later: readers of earlier files do without them.
    latency_p99_ms: float | None = None
    rounds: int = 0
    memory_pss_bytes: int | None = None
    # Share of right rows among the first `device_accuracy_rows` test rows, by the logits that the device gave.
    device_accuracy: float | None = None
    device_accuracy_rows: int | None = None
    temperature_max_c: float | None = None
    gpu_mhz_mean: float | None = None
    gpu_load_percent_mean: float | None = None
    # Whether the device reported more throttling at the end of a measurement than at its start.
    throttled: bool | None = None
    # What the GPU computed in, and what its driver calls it.
    gpu_precision: str | None = None
    gpu_adapter: str | None = None
    sustained_s: float | None = None
    sustained_p50_ms: float | None = None
    # Median of the last tenth of a sustained measurement over that of the first, minus 1.
    sustained_drift: float | None = None
    error: str | None = None

    @classmethod
    def of(cls, target: Target, params: BenchmarkParams, error: str | None = None) -> Self:
        """The row of a target before anything is measured, or of one that failed."""
        artifact = target.artifact
        return cls(
            artifact=artifact.name,
            md5=artifact.md5(),
            format=artifact.card.format,
            recipe=artifact.card.recipe,
            precision=artifact.card.precision,
            sequence_length=params.sequence_length,
            threads=params.threads,
            size_bytes=artifact.size_bytes,
            total_ops=count_operators(artifact),
            # A failed row of the GPU must be told from one of the processor.
            accelerator=None if target.accelerator == "cpu" else target.accelerator,
            gpu_precision=target.gpu_precision,
            error=error,
        )

    def measured(
        self, answers: list[Answer], proof: LogitComparison | None, samples: Sequence[Sample], seed: int
    ) -> "BenchmarkRow":
        """The row with the figures of all rounds; `proof` is None for a model that is its own source."""
        latency = summarise_latencies([a.latencies_ms for a in answers], seed)
        last = answers[-1]
        wall_s = sum(a.wall_s for a in answers)
        timed, single = _is_timed(last), last.summary_runs is None
        return self.model_copy(
            update={
                "runtime": last.runtime,
                "accelerator": last.accelerator,
                "gpu_adapter": last.gpu_adapter,
                "latency_p50_ms": latency.p50_ms if timed else None,
                "latency_p90_ms": latency.p90_ms if timed and single else None,
                "latency_p99_ms": latency.p99_ms if timed and single else None,
                "latency_p50_ci_ms": latency.p50_ci_ms if timed and (single or len(answers) > 2) else None,
                "rounds": len(answers),
                "runs": sum(a.summary_runs or len(a.latencies_ms) for a in answers),
                "memory_baseline_bytes": _max_known([a.memory_baseline_bytes for a in answers]),
                "memory_peak_bytes": _max_known([a.memory_peak_bytes for a in answers]),
                "memory_pss_bytes": _max_known([a.memory_pss_bytes for a in answers]),
                "cpu_percent": _cpu_percent(answers, wall_s),
                "power_mean_mw": _mean_power(answers, wall_s),
                "temperature_start_c": answers[0].temperature_start_c,
                "temperature_end_c": last.temperature_end_c,
                "delegated_ops": last.delegated_ops,
                "partitions": last.partitions,
                "logit_max_abs_diff": proof and proof.max_abs_diff,
                "logit_rel_diff": proof and proof.max_rel_diff,
                "agreement": proof and proof.agreement,
                **summarise_samples(answers, samples),
            }
        )

    def with_sustained(self, answer: Answer | None) -> "BenchmarkRow":
        """The row with the figures of a measurement without pauses, if there was one."""
        if answer is None or not _is_timed(answer):
            return self
        latencies = np.asarray(answer.latencies_ms)
        tenth = max(1, len(latencies) // 10)
        return self.model_copy(
            update={
                "sustained_s": answer.wall_s,
                "sustained_p50_ms": float(np.median(latencies)),
                "sustained_drift": None
                if answer.summary_runs
                else float(np.median(latencies[-tenth:]) / np.median(latencies[:tenth])) - 1,
            }
        )


def measure_accuracy(logits: NDArray[np.float32], rows: Split, *, multi_label: bool) -> dict[str, float | int | None]:
    """Accuracy of a device's logits [rows, classes] over the first rows of a split: a row counts as a whole."""
    count = len(logits)
    if count == 0:
        return {"device_accuracy": None, "device_accuracy_rows": None}
    targets = rows.targets[:count]
    right = ((logits > 0) == (targets > 0.5)).all(axis=1) if multi_label else logits.argmax(axis=1) == targets
    return {"device_accuracy": float(right.mean()), "device_accuracy_rows": count}


def prove(
    reference: NDArray[np.float32] | None, logits_by_round: list[NDArray[np.float32]], *, multi_label: bool = False
) -> LogitComparison:
    """The worst comparison over all rounds with the reference's logits; raises ProofError for another model.

    Its agreement is that of the decisions: the arg max, or in a multi-label task the whole set of classes.
    """
    if reference is None:
        raise ProofError(
            "the student in torch gave no logits to compare with",
            "Look at the error of the student's own row.",
        )
    compared = [
        replace(
            compare_logits(reference, logits),
            agreement=decision_agreement(reference, logits, multi_label=multi_label).all_rows,
        )
        for logits in logits_by_round
    ]
    worst = max(compared, key=lambda c: c.max_abs_diff)
    if worst.agreement < AGREEMENT_MIN:
        raise ProofError(
            f"agrees with torch on {worst.agreement:.0%} of {worst.rows} rows only",
            "The conversion or the recipe broke the model; its latency would mean nothing.",
        )
    return worst


def count_operators(artifact: Artifact) -> int | None:
    """Operators of a .tflite file over all its subgraphs, or of all its parts; None for other formats.

    Of a damaged file too: what is wrong with it, its runtime says.
    """
    if artifact.card.format != "tflite":
        return None
    if artifact.in_parts:
        from pocketbert.partition.manifest import read_manifest

        return sum(part.operators for part in read_manifest(artifact.model_path).parts)
    from pocketbert.runtimes.litert_runtime import count_operators as count

    try:
        return count(artifact.model_path)
    except (struct.error, TypeError, ValueError):
        return None


def _is_timed(answer: Answer) -> bool:
    """A driver in software proves what is computed; its times mean nothing."""
    return not (answer.gpu_adapter and is_software(answer.gpu_adapter))


def _max_known(values: list[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _cpu_percent(answers: list[Answer], wall_s: float) -> float | None:
    """Of one core; None where one of the rounds could not tell."""
    known = [a.cpu_s for a in answers if a.cpu_s is not None]
    return 100 * sum(known) / wall_s if len(known) == len(answers) else None


def _mean_power(answers: list[Answer], wall_s: float) -> float | None:
    """Mean over the measured time of all rounds; None where one of them could not read it."""
    energy_mj = [None if a.power_mean_mw is None else a.power_mean_mw * a.wall_s for a in answers]
    known = [energy for energy in energy_mj if energy is not None]
    return sum(known) / wall_s if len(known) == len(energy_mj) else None

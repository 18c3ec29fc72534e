"""One row of benchmark.json: what was measured of one artifact on one device, with the proof that it was the model."""

from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.devices.base import WorkerAnswer
from pocketbert.devices.statistics import summarise_latencies
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
    error: str | None = None

    @classmethod
    def of(cls, artifact: Artifact, params: BenchmarkParams, error: str | None = None) -> Self:
        """The row of an artifact before anything is measured, or of one that failed."""
        return cls(
            artifact=artifact.name,
            md5=artifact.md5(),
            format=artifact.card.format,
            recipe=artifact.card.recipe,
            precision=artifact.card.precision,
            sequence_length=params.sequence_length,
            threads=params.threads,
            size_bytes=artifact.size_bytes,
            error=error,
        )

    def measured(self, answers: list[WorkerAnswer], proof: LogitComparison | None, seed: int) -> "BenchmarkRow":
        """The row with the figures of all rounds; `proof` is None for a model that is its own source."""
        latency = summarise_latencies([a.latencies_ms for a in answers], seed)
        last = answers[-1]
        wall_s = sum(a.wall_s for a in answers)
        return self.model_copy(
            update={
                "runtime": last.runtime,
                "accelerator": last.accelerator,
                "latency_p50_ms": latency.p50_ms,
                "latency_p90_ms": latency.p90_ms,
                "latency_p50_ci_ms": latency.p50_ci_ms,
                "runs": sum(len(a.latencies_ms) for a in answers),
                "memory_baseline_bytes": _max_known([a.memory_baseline_bytes for a in answers]),
                "memory_peak_bytes": _max_known([a.memory_peak_bytes for a in answers]),
                "cpu_percent": 100 * sum(a.cpu_s for a in answers) / wall_s,
                "power_mean_mw": _mean_power(answers, wall_s),
                "temperature_start_c": answers[0].temperature_start_c,
                "temperature_end_c": last.temperature_end_c,
                "total_ops": last.total_ops,
                "delegated_ops": last.delegated_ops,
                "partitions": last.partitions,
                "logit_max_abs_diff": proof and proof.max_abs_diff,
                "logit_rel_diff": proof and proof.max_rel_diff,
                "agreement": proof and proof.agreement,
            }
        )


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


def _max_known(values: list[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _mean_power(answers: list[WorkerAnswer], wall_s: float) -> float | None:
    """Mean over the measured time of all rounds; None where one of them could not read it."""
    energy_mj = [None if a.power_mean_mw is None else a.power_mean_mw * a.wall_s for a in answers]
    known = [energy for energy in energy_mj if energy is not None]
    return sum(known) / wall_s if len(known) == len(energy_mj) else None

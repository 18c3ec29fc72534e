"""Quantize a part of a model and measure what it costs and gains."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact, ArtifactCard, write_artifact
from pocketbert.data.dataset import Split, read_labels
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import DeviceError, ProofError
from pocketbert.numerics.agreement import decision_agreement
from pocketbert.numerics.logits import compare_logits
from pocketbert.quantize.sensitivity_graph import Operation, quantized_operations
from pocketbert.runtimes.base import Runtime
from pocketbert.runtimes.engines import open_runtime
from pocketbert.runtimes.metrics import score_logits
from pocketbert.runtimes.rows import row_length, run_texts

# Runs of one row each by which latencies are told apart, in turn with the unquantized model.
_LATENCY_RUNS = 15

# Write the model file with the operations that match these patterns left in float.
Quantize = Callable[[Path, tuple[str, ...]], None]


@dataclass(frozen=True)
class Trial:
    """What a partly quantized model does on the validation rows, against the unquantized one; None is unknown."""

    # |logit difference| in units of the spread of the logits: its mean and its maximum.
    logit_mean_rel_diff: float | None = None
    logit_rel_diff: float | None = None
    agreement: float | None = None
    accuracy: float | None = None
    # Percentage points against the unquantized model; below zero for a gain.
    accuracy_drop: float | None = None
    latency_p50_ms: float | None = None
    # Milliseconds faster than the unquantized model, measured in turn with it.
    latency_gained_ms: float | None = None
    size_bytes: int | None = None
    # Why there are no figures: the model gives NaN, or cannot be loaded.
    error: str | None = None

    @property
    def harm(self) -> float:
        """By what parts are ranked: the mean logit difference, infinite for a model that does not work at all."""
        return float("inf") if self.logit_mean_rel_diff is None else self.logit_mean_rel_diff

    def within(self, accuracy_drop_max: float, logit_rel_diff_max: float | None) -> bool:
        """Whether the model keeps the limits."""
        if self.accuracy_drop is None or self.logit_rel_diff is None or self.accuracy_drop > accuracy_drop_max:
            return False
        return logit_rel_diff_max is None or self.logit_rel_diff <= logit_rel_diff_max


class Bench:
    """Tries partly quantized copies of one artifact on the same rows; a context manager."""

    def __init__(self, source: Artifact, card: ArtifactCard, quantize: Quantize, rows: Split, scratch: Path) -> None:
        self._quantize, self._rows = quantize, rows
        labels = read_labels(source.folder)
        self._problem = labels.problem_type
        self._length = row_length(card, card.max_length)
        self._copy = write_artifact(scratch, card, labels, TextEncoder(source.folder))
        self._source = source
        self._reference = open_runtime(source, threads=1)
        self._logits = run_texts(source, self._reference, rows.texts, self._length)
        # Raises ProofError where the source's own logits tell nothing.
        compare_logits(self._logits, self._logits)
        self.accuracy = self._score(self._logits)
        self.runs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reference.close()

    def measure(self, excluded: Iterable[Operation]) -> Trial:
        """Quantize all but `excluded`, and run the rows."""
        self.runs += 1
        self._quantize(self._copy.model_path, tuple(operation.pattern for operation in excluded))
        try:
            runtime = open_runtime(self._copy, threads=1)
            try:
                return self._compare(runtime)
            finally:
                runtime.close()
        except (ProofError, DeviceError) as error:
            return Trial(error=str(error))

    def operations(self) -> list[Operation]:
        """The operations of the source that the copy measured last computes in another way."""
        return quantized_operations(self._source.model_path, self._copy.model_path)

    def _compare(self, runtime: Runtime) -> Trial:
        logits = run_texts(self._copy, runtime, self._rows.texts, self._length)
        compared = compare_logits(self._logits, logits)
        accuracy = self._score(logits)
        own_ms, reference_ms = self._latencies(runtime)
        return Trial(
            logit_mean_rel_diff=compared.mean_abs_diff / compared.spread,
            logit_rel_diff=compared.max_rel_diff,
            agreement=decision_agreement(
                self._logits, logits, multi_label=self._problem == "multi_label"
            ).all_rows,
            accuracy=accuracy,
            accuracy_drop=100 * (self.accuracy - accuracy),
            latency_p50_ms=own_ms,
            latency_gained_ms=reference_ms - own_ms,
            size_bytes=self._copy.size_bytes,
        )  # fmt: skip

    def _score(self, logits: NDArray[np.float32]) -> float:
        return score_logits(logits, self._rows.targets, self._problem).accuracy

    def _latencies(self, runtime: Runtime) -> tuple[float, float]:
        """Median milliseconds of a row of full length: of the copy, and of the source between its runs."""
        batch = TextEncoder(self._source.folder).encode(self._rows.texts[:1], self._length, pad_to=self._length)
        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(_LATENCY_RUNS):
            for runs, engine in zip(taken, (runtime, self._reference), strict=True):
                started = time.perf_counter()
                engine.run(batch)
                runs.append(1000 * (time.perf_counter() - started))
        return float(np.median(taken[0])), float(np.median(taken[1]))

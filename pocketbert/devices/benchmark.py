"""Measure every artifact on one device, in interleaved rounds of fresh processes, each proven before it is timed."""

import json
import logging
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert import __version__
from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import read_labels
from pocketbert.data.tokenize import TextEncoder
from pocketbert.devices.base import (
    ANSWER_FILE,
    INPUTS_FILE,
    LOGITS_FILE,
    Device,
    HostFacts,
    WorkerAnswer,
    WorkerRequest,
    read_answer,
    write_request,
)
from pocketbert.devices.inventory import open_device
from pocketbert.devices.rows import BenchmarkRow, prove
from pocketbert.errors import DeviceError, ParamsError, PocketBertError
from pocketbert.params import BenchmarkParams
from pocketbert.stage import Metrics

# Raised when a change makes latencies incomparable with earlier ones.
HARNESS_VERSION = 1
REFERENCE = "student"
_HEADLINE = ("latency_p50_ms", "latency_p90_ms", "memory_peak_bytes", "cpu_percent", "logit_rel_diff", "size_bytes")

_log = logging.getLogger("pocketbert")


@dataclass
class _Series:
    """What the rounds of one artifact gave so far."""

    artifact: Artifact
    answers: list[WorkerAnswer] = field(default_factory=list)
    logits: list[NDArray[np.float32]] = field(default_factory=list)
    error: str | None = None


def benchmark_artifacts(
    params: BenchmarkParams, device: str, artifacts: list[Artifact], texts: list[str], folder: Path
) -> Metrics:
    """Write benchmark.json (host facts, a row an artifact) and latencies.parquet into `folder`.

    An artifact that crashes, hangs or turns out to be another model costs its own row. Raises DeviceError where
    none can be measured, and ParamsError for an unknown device or a sequence length that an artifact cannot run.
    """
    machine = open_device(device)
    _require_length(params, artifacts)
    if not texts:
        raise DeviceError("there are no rows to measure with", "Give the data set a test split with rows in it.")
    facts = machine.facts()
    measured_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    series = [_Series(artifact) for artifact in artifacts]
    with tempfile.TemporaryDirectory(prefix="pocketbert-benchmark-") as scratch:
        works = _prepare_inputs(params, artifacts, texts, Path(scratch))
        _measure_rounds(params, machine, series, works)
    rows = _judge(params, series)
    folder.mkdir(parents=True, exist_ok=True)
    _write_document(folder / "benchmark.json", device, facts, measured_at, rows)
    _write_latencies(folder / "latencies.parquet", [s for s, row in zip(series, rows, strict=True) if not row.error])
    failed = [row for row in rows if row.error]
    if len(failed) == len(rows):
        raise DeviceError(f"no artifact could be measured on {device}: {failed[0].error}", "Mend that one first.")
    return {row.artifact: {key: getattr(row, key) for key in _HEADLINE} for row in rows} | {"failed_rows": len(failed)}


def _require_length(params: BenchmarkParams, artifacts: Sequence[Artifact]) -> None:
    """Latencies at different lengths must not stand in one table."""
    for artifact in artifacts:
        card, wanted = artifact.card, params.sequence_length
        if card.sequence_length not in (None, wanted):
            raise ParamsError(
                f"benchmark.sequence_length is {wanted}, but {artifact.name} was built for {card.sequence_length}",
                "Set it and export_tflite.sequence_length to the same value.",
            )


def _prepare_inputs(
    params: BenchmarkParams, artifacts: Sequence[Artifact], texts: Sequence[str], scratch: Path
) -> dict[str, Path]:
    """A work folder an artifact with the same texts, drawn by seed, in the artifact's own tokens: inputs.npz."""
    count = min(len(texts), max(params.proof_rows, params.runs))
    chosen = np.random.default_rng(params.seed).choice(len(texts), size=count, replace=False)
    works = {}
    for artifact in artifacts:
        work = works[artifact.name] = scratch / artifact.name
        work.mkdir()
        # A model that was trained on shorter rows is cut to those, and padded to the length that is measured.
        kept = min(params.sequence_length, artifact.card.max_length)
        rows = TextEncoder(artifact.folder).encode([texts[i] for i in chosen], kept, pad_to=params.sequence_length)
        np.savez(work / INPUTS_FILE, allow_pickle=False, **rows)
    return works


def _measure_rounds(
    params: BenchmarkParams, machine: Device, series: Sequence[_Series], works: dict[str, Path]
) -> None:
    """Fill `series` in rounds over all artifacts, in an order that is shuffled each round."""
    shuffler = random.Random(params.seed)
    rounds = min(params.rounds, params.runs)
    for index in range(rounds):
        runs = params.runs * (index + 1) // rounds - params.runs * index // rounds
        order = [entry for entry in series if entry.error is None]
        shuffler.shuffle(order)
        for entry in order:
            try:
                _measure_once(params, machine, entry, works[entry.artifact.name], runs)
            except PocketBertError as error:
                entry.error = str(error)
                _log.warning("%s: %s", entry.artifact.name, error)
        _log.info("benchmark round %d of %d done", index + 1, rounds)


def _measure_once(params: BenchmarkParams, machine: Device, entry: _Series, work: Path, runs: int) -> None:
    # An answer of the round before must not pass for this one's.
    for name in (LOGITS_FILE, ANSWER_FILE):
        (work / name).unlink(missing_ok=True)
    request = WorkerRequest(
        artifact=entry.artifact.folder.resolve(),
        threads=params.threads,
        proof_rows=params.proof_rows,
        warmup=params.warmup,
        runs=runs,
    )
    write_request(work, request)
    machine.run_worker(work, params.timeout_s)
    entry.answers.append(read_answer(work))
    entry.logits.append(np.load(work / LOGITS_FILE, allow_pickle=False))


def _judge(params: BenchmarkParams, series: Sequence[_Series]) -> list[BenchmarkRow]:
    """A row an artifact: converted ones compared with the student's logits.

    A torch model is a source, not a conversion: its rounds must agree with one another, but it has no figure.
    """
    students = [s for s in series if s.artifact.name == REFERENCE and s.error is None]
    reference = students[0].logits[0] if students else None
    rows = []
    for entry in series:
        row = BenchmarkRow.of(entry.artifact, params, entry.error)
        if entry.error is None:
            try:
                own = entry.artifact.card.format == "torch"
                multi_label = read_labels(entry.artifact.folder).problem_type == "multi_label"
                proof = prove(entry.logits[0] if own else reference, entry.logits, multi_label=multi_label)
                row = row.measured(entry.answers, None if own else proof, params.seed)
            except PocketBertError as error:
                row = row.model_copy(update={"error": str(error)})
                _log.warning("%s: %s", entry.artifact.name, error)
        rows.append(row)
    return rows


def _write_document(path: Path, device: str, facts: HostFacts, measured_at: str, rows: Sequence[BenchmarkRow]) -> None:
    document = {
        "device": {"name": device, **facts.model_dump(mode="json")},
        "harness": {"pocketbert": __version__, "version": HARNESS_VERSION},
        "measured_at": measured_at,
        "rows": [row.model_dump(mode="json") for row in rows],
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _write_latencies(path: Path, series: Sequence[_Series]) -> None:
    """Raw latencies of the valid rows: artifact, round, run, latency_ms."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    runs = [
        {"artifact": entry.artifact.name, "round": index, "run": run, "latency_ms": latency}
        for entry in series
        for index, answer in enumerate(entry.answers)
        for run, latency in enumerate(answer.latencies_ms)
    ]
    columns = pa.schema(
        [("artifact", pa.string()), ("round", pa.int32()), ("run", pa.int32()), ("latency_ms", pa.float64())]
    )
    pq.write_table(pa.Table.from_pylist(runs, schema=columns), path)

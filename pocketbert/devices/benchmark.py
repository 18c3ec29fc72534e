"""Measure every artifact on one device, in interleaved rounds of fresh processes, each proven before it is timed."""

import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import Split, read_labels
from pocketbert.devices.base import Answer, HostFacts, Sample
from pocketbert.devices.connect import open_link, open_session
from pocketbert.devices.follow import Event, Patience
from pocketbert.devices.inputs import choose_rows, encode_rows, require_length
from pocketbert.devices.inventory import AdbParams, LocalParams, SshParams, find_device
from pocketbert.devices.links.base import Link
from pocketbert.devices.plan import make_plan
from pocketbert.devices.results import write_document, write_latencies, write_samples
from pocketbert.devices.retry import AGAIN
from pocketbert.devices.rows import BenchmarkRow, measure_accuracy, prove
from pocketbert.devices.targets import Target, choose_targets
from pocketbert.errors import DeviceError, PocketBertError
from pocketbert.params import BenchmarkParams
from pocketbert.stage import Metrics

REFERENCE = "student"
_HEADLINE = ("latency_p50_ms", "latency_p90_ms", "memory_peak_bytes", "cpu_percent", "logit_rel_diff", "size_bytes")
# A file on this machine costs nothing to look at.
_LOCAL_PATIENCE = Patience(poll_s=0.1)
_REMOTE_PATIENCE = Patience()

_log = logging.getLogger("pocketbert")


@dataclass
class _Series:
    """What the rounds of one target gave so far."""

    target: Target
    answers: list[Answer] = field(default_factory=list)
    sustained: Answer | None = None
    error: str | None = None


@dataclass
class Measured:
    """What a device gave: its facts, and a series an artifact."""

    series: dict[str, _Series]
    facts: HostFacts | None = None
    sources: dict[str, str | None] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    # Why the device as a whole gave nothing, or stopped.
    error: str | None = None


def benchmark_artifacts(
    params: BenchmarkParams,
    name: str,
    artifacts: list[Artifact],
    split: Split,
    folder: Path,
    link: Link | None = None,
    *,
    own_params: bool = True,
) -> Metrics:
    """Write benchmark.json (facts, a row an artifact), latencies.parquet and telemetry.parquet into `folder`.

    An artifact that crashes, hangs or turns out to be another model costs its own row, and a device that is down all
    of its rows: each says why. Raises DeviceError where this machine itself can measure none, and ParamsError for an
    unknown device or a sequence length that an artifact cannot run. `link` stands in for the device's own in tests;
    without `own_params` the device's keys of `benchmark` in devices.yaml are not looked at.
    """
    device = find_device(name)
    if own_params:
        params = with_own_params(params, device)
    require_length(params, artifacts)
    rows = choose_rows(params, split)
    measured_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    targets = choose_targets(artifacts, device)
    measured = Measured({target.key: _Series(target, error=target.refusal) for target in targets})
    try:
        _measure(params, name, device, rows, measured, link or open_link(name, device))
    except DeviceError as error:
        measured.error = str(error)
        _log.error("%s gave no rows: %s%s", name, error, "" if isinstance(device, LocalParams) else f" {AGAIN}")
    table = _judge(params, device, measured, rows)
    folder.mkdir(parents=True, exist_ok=True)
    facts = measured.facts.model_dump() if measured.facts else dict.fromkeys(HostFacts.model_fields)
    about = {"name": name, "kind": device.kind, "error": measured.error and f"{measured.error} {AGAIN}", **facts}
    write_document(folder, about, measured.sources, measured_at, table)
    pairs = zip(measured.series.items(), table, strict=True)
    valid = {key: s.answers for (key, s), row in pairs if row.latency_p50_ms is not None}
    write_latencies(folder / "latencies.parquet", valid)
    write_samples(folder / "telemetry.parquet", measured.samples)
    # What a device is not meant to run has not failed there.
    failed = [row for row, target in zip(table, targets, strict=True) if row.error and target.refusal is None]
    if len(failed) == len(table) and isinstance(device, LocalParams):
        raise DeviceError(f"no artifact could be measured on {name}: {failed[0].error}", "Mend that one first.")
    headline = {
        key: {name: getattr(row, name) for name in _HEADLINE} for key, row in zip(measured.series, table, strict=True)
    }
    return {**headline, "failed_rows": len(failed)}


def with_own_params(params: BenchmarkParams, device: LocalParams | SshParams | AdbParams) -> BenchmarkParams:
    """`params` with the keys that the device's entry sets for itself."""
    own = device.benchmark
    return params.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})


def _measure(
    params: BenchmarkParams,
    name: str,
    device: LocalParams | SshParams | AdbParams,
    rows: Split,
    measured: Measured,
    link: Link,
) -> None:
    """Run the whole plan on the device and collect what it says."""
    patience = _LOCAL_PATIENCE if isinstance(device, LocalParams) else _REMOTE_PATIENCE
    targets = [series.target for series in measured.series.values() if series.error is None]
    with (
        open_session(name, device, link, patience) as session,
        tempfile.TemporaryDirectory(prefix="pocketbert-benchmark-") as scratch,
    ):
        plan, refused = make_plan(params, device, session, targets, rows.texts, Path(scratch))
        for key, reason in refused.items():
            measured.series[key].error = reason
            _log.warning("%s: %s", key, reason)
        for event in session.run(plan, device.limits.wait_s):
            _collect(event, measured)


def _collect(event: Event, measured: Measured) -> None:
    kind = event.pop("event")
    if kind == "started":
        measured.facts = HostFacts.model_validate(event["facts"])
        measured.sources = event["sources"]
    elif kind == "sample":
        measured.samples.append(Sample.model_validate(event))
    elif kind == "measured":
        series = measured.series[event["artifact"]]
        answer = Answer.model_validate(event["answer"])
        if event["round"] is None:
            series.sustained = answer
        else:
            series.answers.append(answer)
    elif kind == "failed":
        measured.series[event["artifact"]].error = event["cause"]
        _log.warning("%s: %s", event["artifact"], event["cause"])
    elif kind == "round":
        _log.info("benchmark round %d done (%d planned)", event["index"] + 1, event["rounds"])
    elif kind == "warning":
        _log.warning("%s", event["cause"])


def _judge(
    params: BenchmarkParams, device: LocalParams | SshParams | AdbParams, measured: Measured, rows: Split
) -> list[BenchmarkRow]:
    """A row an artifact: converted ones compared with the student's logits.

    A torch model is a source, not a conversion: its rounds must agree with one another, but it has no figure.
    """
    complete = [s for s in measured.series.values() if s.error is None and s.answers]
    reference = _reference(params, device, measured, rows) if complete else None
    table = []
    for series in measured.series.values():
        error = series.error or measured.error
        row = BenchmarkRow.of(series.target, params, error)
        if error is None:
            try:
                row = _complete(row, params, series, measured.samples, reference, rows)
            except PocketBertError as failure:
                row = row.model_copy(update={"error": str(failure)})
                _log.warning("%s: %s", series.target.artifact.name, failure)
        table.append(row)
    return table


def _complete(
    row: BenchmarkRow,
    params: BenchmarkParams,
    series: _Series,
    samples: Sequence[Sample],
    reference: NDArray[np.float32] | None,
    rows: Split,
) -> BenchmarkRow:
    """Raises ProofError where it was another model."""
    own = series.target.artifact.card.format == "torch"
    multi_label = read_labels(series.target.artifact.folder).problem_type == "multi_label"
    count = min(params.proof_rows, len(rows))
    logits = [answer.read_logits() for answer in series.answers]
    proof = prove(
        logits[0][:count] if own else reference, [rounds[:count] for rounds in logits], multi_label=multi_label
    )
    row = row.measured(series.answers, None if own else proof, samples, params.seed)
    accuracy = measure_accuracy(logits[0][: params.accuracy_rows], rows, multi_label=multi_label)
    return row.with_sustained(series.sustained).model_copy(update=accuracy)


def _reference(
    params: BenchmarkParams, device: LocalParams | SshParams | AdbParams, measured: Measured, rows: Split
) -> NDArray[np.float32] | None:
    """The student's logits of the proof rows: as measured here, or for a device without torch computed here."""
    student = measured.series.get(REFERENCE)
    if student is None:
        return None
    count = min(params.proof_rows, len(rows))
    if isinstance(device, LocalParams):
        return student.answers[0].read_logits()[:count] if student.error is None and student.answers else None
    from pocketbert.runtimes.engines import open_runtime

    runtime = open_runtime(student.target.artifact, threads=params.threads)
    return runtime.run(encode_rows(params, student.target.artifact, rows.texts[:count]))

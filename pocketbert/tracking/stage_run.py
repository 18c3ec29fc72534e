"""What a stage sees of the record: open it, log to it, and never wait for it."""

import getpass
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from pocketbert.params import PublishParams, Section
from pocketbert.provenance import git_commit
from pocketbert.redaction import hide_secrets
from pocketbert.tracking.flatten import flatten_params, safe_key, split_summary
from pocketbert.tracking.location import spool_folder
from pocketbert.tracking.sender import Sender
from pocketbert.tracking.spool import End, Points, Spool, Start, Status, Texts

_log = logging.getLogger(__name__)
_Event = TypeVar("_Event", Start, Points, Texts, End)
# The parent run is the record of publishing: a run for each `publish` would make publishing twice a change.
_UNRECORDED = ("publish",)


class StageRun:
    """The record of one execution of a stage.

    `execution_id` (32 hex digits) names it; the MLflow run carries it as a tag.
    """

    def __init__(self, execution_id: str, spool: Spool | None) -> None:
        self.execution_id = execution_id
        self._spool = spool
        self._last_step = 0
        self._lock = threading.Lock()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics of a training step; never blocks on the store and never raises."""
        numbers: dict[str, float] = {}
        for key, value in metrics.items():
            try:
                numbers[safe_key(key)] = float(value)
            except (TypeError, ValueError):
                _log.warning("the metric %s at step %d is no number: %r", key, step, value)
        with self._lock:
            self._last_step = max(self._last_step, step)
        if numbers:
            self._append(Points(time_ms=_now_ms(), step=step, metrics=numbers))

    def log_summary(self, metrics: Mapping[str, object]) -> None:
        """Record a stage's own metrics: nested keys joined by dots, texts as tags, None (unknown) left out."""
        numbers, texts = split_summary(metrics)
        # MLflow shows the value of the highest step: a summary must not hide behind the curve of its name.
        self.log_metrics(numbers, self._last_step)
        if texts:
            self._append(Texts(time_ms=_now_ms(), tags=texts))

    def _append(self, event: _Event) -> None:
        if self._spool is None:
            return
        try:
            self._spool.append(event)
        except OSError as error:
            _log.warning("a tracking record is lost, the disk did not take it: %s", error)


@contextmanager
def open_stage_run(stage_id: str, params: Section, publish: PublishParams) -> Iterator[StageRun]:
    """Record a stage while the block runs: FINISHED, FAILED with the error's sentence, or KILLED for Ctrl-C."""
    execution_id = uuid.uuid4().hex
    spool = None if stage_id in _UNRECORDED else _start(stage_id, params, execution_id)
    if spool is None:
        yield StageRun(execution_id, None)
        return
    sender = _send(spool, publish)
    run = StageRun(execution_id, spool)
    status: Status = "FINISHED"
    try:
        yield run
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        run._append(Texts(time_ms=_now_ms(), tags={"error": _sentence(error)}))
        raise
    finally:
        run._append(End(time_ms=_now_ms(), status=status))
        if sender:
            sender.let_go()


def _start(stage_id: str, params: Section, execution_id: str) -> Spool | None:
    """A spool with its first event, or None where the disk does not take it."""
    tags = {
        "mlflow.source.name": hide_secrets(" ".join(["stages/" + stage_id.split("/")[0] + ".py", *sys.argv[1:]])),
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        "pocketbert.stage": stage_id,
    }
    commit = git_commit()
    if commit:
        tags["mlflow.source.git.commit"] = commit
    if experiment := os.environ.get("DVC_EXP_NAME"):
        tags["dvc.experiment"] = experiment
    start = Start(
        time_ms=_now_ms(),
        execution_id=execution_id,
        run_name=stage_id,
        params=flatten_params(params.model_dump(mode="json", by_alias=True)),
        tags=tags,
    )
    try:
        spool = Spool.create(spool_folder(), execution_id)
        spool.append(start)
    except OSError as error:
        _log.warning("this execution is not tracked, its spool cannot be written: %s", error)
        return None
    return spool


def _send(spool: Spool, publish: PublishParams) -> Sender | None:
    try:
        return Sender(spool, publish)
    except OSError as error:
        _log.warning("the record is kept in %s, the process that sends it does not start: %s", spool.path, error)
        spool.close()
        return None


def _sentence(error: BaseException) -> str:
    text = str(error).strip()
    return hide_secrets(f"{type(error).__name__}: {text}" if text else type(error).__name__)[:5000]


def _user() -> str:
    try:
        return getpass.getuser()
    # A container's numeric user has no name (KeyError before Python 3.13, OSError after).
    except (KeyError, OSError):
        return str(os.getuid())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

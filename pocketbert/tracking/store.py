"""A connected MLflow store: the few operations that the record needs, each safe to repeat."""

import importlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pocketbert.params import PublishParams
from pocketbert.process import environment_of
from pocketbert.redaction import hide_secrets
from pocketbert.tracking.location import (
    artifact_folder,
    exclusively,
    is_embedded,
    sqlite_file,
    store_key,
    tracking_uri,
)
from pocketbert.tracking.spool import Start, Status

EXECUTION_TAG = "pocketbert.execution_id"
PARENT_TAG = "mlflow.parentRunId"
# The hash of the pipeline's state that a parent run stands for.
STATE_TAG = "pocketbert.state"
_METRICS_A_BATCH = 500
_ENTRIES_A_BATCH = 100
# What a store answers to a record that it will never take, however often it is sent.
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")

_log = logging.getLogger(__name__)


class Store:
    """An MLflow store and the experiment in it; raises whatever mlflow and its drivers raise."""

    def __init__(self, params: PublishParams) -> None:
        self.uri = tracking_uri(params)
        self.key = store_key(self.uri)
        self.client = _connect(self.uri)
        self.experiment_id = self._experiment(params.experiment)

    @property
    def shown_uri(self) -> str:
        """The URI without secrets."""
        return hide_secrets(self.uri)

    def find_runs(self, tag: str, value: str) -> list[Any]:
        """Runs of the experiment that carry a tag, oldest first."""
        found = self.client.search_runs(
            [self.experiment_id], filter_string=f"tags.`{tag}` = '{value}'", order_by=["attributes.start_time ASC"]
        )
        return list(found)

    def open_stage_run(self, start: Start) -> str:
        """The run of an execution: the one that is there, else a new one with its params and tags."""
        found = self.find_runs(EXECUTION_TAG, start.execution_id)
        # A creation that was carried out, but answered too late, may have been repeated.
        for twin in found[1:]:
            self.client.delete_run(twin.info.run_id)
        if found:
            run_id: str = found[0].info.run_id
        else:
            tags = {**start.tags, EXECUTION_TAG: start.execution_id}
            run = self.client.create_run(self.experiment_id, start.time_ms, tags, start.run_name)
            run_id = run.info.run_id
        self.log_params(run_id, start.params)
        return run_id

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Write-once parameters; writing the same value again changes nothing."""
        from mlflow.entities import Param

        for batch in _batches([Param(key, value) for key, value in params.items()], _ENTRIES_A_BATCH):
            self._log(run_id, params=batch)

    def log_points(self, run_id: str, points: Sequence[tuple[int, int, Mapping[str, float]]]) -> None:
        """Metrics as (time in ms, step, values)."""
        from mlflow.entities import Metric

        metrics = [Metric(key, value, t, step) for t, step, values in points for key, value in values.items()]
        for batch in _batches(metrics, _METRICS_A_BATCH):
            self._log(run_id, metrics=batch)

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        for batch in _batches([RunTag(key, value) for key, value in tags.items()], _ENTRIES_A_BATCH):
            self._log(run_id, tags=batch)

    def end(self, run_id: str, status: Status, time_ms: int) -> None:
        """Close a run."""
        self.client.set_terminated(run_id, status, time_ms)

    def _log(self, run_id: str, **entries: list[Any]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.log_batch(run_id, **entries)
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            kind, refused = next(iter(entries.items()))
            reason = hide_secrets(str(error).splitlines()[0])
            _log.warning("the MLflow store refuses %d %s of run %s: %s", len(refused), kind, run_id, reason)

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            # A server knows where its artifacts belong; a data base alone does not.
            location = None if self.uri.startswith("http") else artifact_folder().as_uri()
            try:
                return str(self.client.create_experiment(name, location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(name)
        if found.lifecycle_stage == "deleted":
            raise MlflowException(f"experiment {name!r} is deleted (`mlflow experiments restore` brings it back)")
        return str(found.experiment_id)


@contextmanager
def patience(timeout_s: int, retries: int) -> Iterator[None]:
    """How long mlflow waits for an answer and how often it asks again (it reads both from the environment)."""
    wanted = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries)}
    with environment_of(wanted):
        yield


def import_mlflow() -> None:
    """Import mlflow (1 to 2 s) without its routine reports."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    importlib.import_module("mlflow.tracking")
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _connect(uri: str) -> Any:
    import_mlflow()
    from mlflow import MlflowClient

    if not is_embedded(uri):
        return MlflowClient(uri)
    # MLflow's own lock does not cover its check of the schema's version: of two processes that meet a new
    # data base, the second may find all tables and an old version.
    with exclusively("store"):
        file = sqlite_file(uri)
        if not file.exists():
            _create_database(file)
        return MlflowClient(uri)


def _create_database(file: Path) -> None:
    """Create the data base under another name: a process killed between two migrations leaves no broken one."""
    from mlflow import MlflowClient

    file.parent.mkdir(parents=True, exist_ok=True)
    for stale in file.parent.glob(f".{file.name}.*.new*"):
        stale.unlink()
    temporary = file.with_name(f".{file.name}.{os.getpid()}.new")
    MlflowClient(f"sqlite:///{temporary}").search_experiments(max_results=1)
    temporary.rename(file)


def _batches(entries: list[Any], size: int) -> Iterator[list[Any]]:
    for first in range(0, len(entries), size):
        yield entries[first : first + size]

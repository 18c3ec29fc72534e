"""Marks runs Crashed whose process is gone, so that nothing is shown as running for ever.

    python -m flows.reaper [--once]

`make up` runs it; one is enough for the flows of a machine. A flow says at its start which process it is; a run
whose process is not there any more, on this machine, was killed. Prefect itself does not notice.
What a killed stage left of its MLflow record is sent, and its run closed, likewise.
"""

import itertools
import logging
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run
from prefect.states import Crashed

from pocketbert.tracking.location import spool_folder
from pocketbert.tracking.spool import has_left_behind

FLOWS = ["rebuild", "watch_data", "sweep", "benchmark_devices"]
_PROCESS, _HOST = "pocketbert.process", "pocketbert.host"
_UNFINISHED = ["PENDING", "RUNNING", "CANCELLING"]
_ENDED = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]
_PERIOD_S = 20
# So long a worker may take to say how a run ended.
_CONFIRM_S = 10
# A worker needs seconds from Pending to the flow's first line; then a run without a process has none any more.
_UNANNOUNCED_S = 80

_log = logging.getLogger("reaper")


def announce() -> None:
    """Say which process this flow run is; called first in every flow."""
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(flow_run.id, {_HOST: socket.gethostname(), _PROCESS: _identity(os.getpid())})


def find_dead(client: SyncPrefectClient) -> dict[UUID, FlowRun]:
    """Unfinished runs whose process on this machine is gone."""
    runs = client.read_flow_runs(
        flow_filter=FlowFilter.model_validate({"name": {"any_": FLOWS}}),
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": _UNFINISHED}}}),
    )
    return {run.id: run for run in runs if _is_dead(run)}


def find_left(client: SyncPrefectClient) -> set[UUID]:
    """Unfinished tasks of runs that have ended: a worker tells of a killed run, but not of its tasks."""
    tasks = client.read_task_runs(
        flow_filter=FlowFilter.model_validate({"name": {"any_": FLOWS}}),
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": _ENDED}}}),
        task_run_filter=TaskRunFilter.model_validate({"state": {"type": {"any_": _UNFINISHED}}}),
    )
    return {task.id for task in tasks}


def mark(client: SyncPrefectClient, run: FlowRun) -> None:
    """Crashed, its tasks first: who sees the run end sees theirs, and a reaper killed in between starts anew."""
    state = _gone()
    of_run = {"flow_run_id": {"any_": [run.id]}, "state": {"type": {"any_": _UNFINISHED}}}
    for task in client.read_task_runs(task_run_filter=TaskRunFilter.model_validate(of_run)):
        client.set_task_run_state(task.id, state, force=True)
    client.set_flow_run_state(run.id, state, force=True)
    _log.info("%s is marked Crashed: its process is gone", run.name)


def _gone() -> Any:
    return Crashed(message="its process ended without a word")


def _is_dead(run: FlowRun) -> bool:
    if _PROCESS in run.labels:
        pid = int(str(run.labels[_PROCESS]).partition(" ")[0])
        return run.labels[_HOST] == socket.gethostname() and run.labels[_PROCESS] != _identity(pid)
    return run.state is not None and datetime.now(UTC) - run.state.timestamp > timedelta(seconds=_UNANNOUNCED_S)


def _identity(pid: int) -> str:
    """A process; the number alone may be another's later. Empty where there is none."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return f"{pid} {process.create_time():.2f}"
    return ""


def settle() -> None:
    """Send what killed stages left of their MLflow record, and close their runs."""
    # In a process of its own, which alone pays for mlflow's import.
    command = [sys.executable, "-m", "pocketbert.tracking.settle"]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=False)


def main() -> None:
    """Look every 20 s, sooner again where a run is dead, or (`--once`) twice."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO)
    settle()
    # A run is marked when it was found dead twice: its worker may be about to say how it ended.
    before: set[UUID] = set()
    for look in itertools.count():
        found: set[UUID] = set()
        try:
            with get_client(sync_client=True) as client:
                dead, left = find_dead(client), find_left(client)
                for run in dead.values():
                    if run.id in before:
                        mark(client, run)
                for task in left.intersection(before):
                    client.set_task_run_state(task, _gone(), force=True)
                before = found = {*dead, *left}
        except (httpx.HTTPError, PrefectException) as error:
            _log.warning("the Prefect server does not answer: %s", error)
        if look and "--once" in sys.argv:
            return
        time.sleep(_CONFIRM_S if found else _PERIOD_S)
        if has_left_behind(spool_folder()):
            settle()


if __name__ == "__main__":
    main()

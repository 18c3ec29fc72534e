"""A real `mlflow server`: killed in the middle of a stage, frozen, and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from pocketbert.params import DistillParams, PublishParams
from pocketbert.tracking import open_stage_run
from pocketbert.tracking.delivery import deliver_left_behind
from pocketbert.tracking.location import spool_folder
from pocketbert.tracking.store import Store

from .conftest import history, the_run, unsent


class Server:
    """One MLflow server on a port of its own; its data outlive it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.uri = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        database = f"sqlite:///{self.folder / 'mlflow.db'}"
        command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        stores = ["--backend-store-uri", database, "--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command, *stores],
                cwd=self.folder,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.3)

    def signal(self, number: int) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def stop(self) -> None:
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.uri}/health", timeout=2).ok
        except requests.RequestException:
            return False


@pytest.fixture
def server(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server with an empty store."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = Server(project, port)
    running.start()
    yield running
    running.stop()


def test_a_server_that_dies_freezes_and_comes_back_has_every_event_once(server: Server) -> None:
    publish = PublishParams(tracking_uri=server.uri)
    with open_stage_run("distill", DistillParams(), publish) as run:
        run.log_metrics({"loss": 0.0, "nan": float("nan")}, 0)
        connected = Store(publish)
        deadline = time.monotonic() + 60
        while not (runs := connected.find_runs("pocketbert.stage", "distill")):
            assert time.monotonic() < deadline, "no run was made"
            time.sleep(0.2)
        server.stop()
        for step in range(1, 1500):
            run.log_metrics({"loss": float(step)}, step)
        time.sleep(2.5)
        server.start()
        run.log_metrics({"loss": 1500.0}, 1500)
        server.signal(signal.SIGSTOP)
        before_end = time.monotonic()
    assert time.monotonic() - before_end < 2, "a frozen server held the stage up"
    assert len(unsent()) == 1, "a frozen server took a record"
    server.signal(signal.SIGCONT)
    # What the frozen server was asked is answered now, to nobody.
    time.sleep(1)
    deliver_left_behind(spool_folder(), connected)
    assert unsent() == []
    there = the_run(connected, "distill")
    assert there.info.run_id == runs[0].info.run_id
    assert there.info.status == "FINISHED"
    assert history(connected, there.info.run_id, "loss") == [(step, float(step)) for step in range(1501)]
    assert len(history(connected, there.info.run_id, "nan")) == 1

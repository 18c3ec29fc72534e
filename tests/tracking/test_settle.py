"""Runs that nobody would close, and stores that answer badly."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pocketbert.params import DistillParams, PublishParams
from pocketbert.tracking import open_stage_run
from pocketbert.tracking.location import spool_folder
from pocketbert.tracking.settle import main, settle
from pocketbert.tracking.spool import Points, Spool, Start, has_left_behind
from pocketbert.tracking.store import Store

from .conftest import the_run, unsent

Connect = Callable[[], Store]


def leave_behind() -> None:
    """What a stage leaves that was killed together with its sender."""
    spool = Spool.create(spool_folder(), "a" * 32)
    now = time.time_ns() // 1_000_000
    tags = {"pocketbert.stage": "teach"}
    spool.append(Start(time_ms=now, execution_id="a" * 32, run_name="teach", params={"epochs": "2"}, tags=tags))
    spool.append(Points(time_ms=now, step=1, metrics={"loss": 1.0}))
    assert not has_left_behind(spool_folder()), "its owner lives"
    spool.close()


def test_a_killed_stage_is_closed_without_another_stage(project: Path, store: Connect) -> None:
    leave_behind()
    assert has_left_behind(spool_folder())
    (project / "params.yaml").write_text("{}", encoding="utf-8")
    assert main() == 0
    run = the_run(store(), "teach")
    assert (run.info.status, run.data.metrics) == ("KILLED", {"loss": 1.0})
    assert unsent() == []
    assert not has_left_behind(spool_folder())
    assert settle(PublishParams()) == (0, 0)


def test_a_parent_run_whose_publish_was_killed_is_closed_and_a_young_one_left_alone(store: Connect) -> None:
    connected = store()
    now = time.time_ns() // 1_000_000
    old, young, stage = (
        connected.client.create_run(connected.experiment_id, start_time=start, tags=tags).info.run_id
        for start, tags in (
            (now - 90_000, {"pocketbert.state": "x"}),
            (now, {"pocketbert.state": "y"}),
            (now - 90_000, {"pocketbert.stage": "teach"}),
        )
    )
    assert settle(PublishParams()) == (0, 1)
    states = {run: connected.client.get_run(run).info.status for run in (old, young, stage)}
    assert states == {old: "KILLED", young: "RUNNING", stage: "RUNNING"}


@contextmanager
def server(status: int, delay_s: float) -> Iterator[str]:
    """A tracking server that answers all requests alike."""

    class Answer(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            time.sleep(delay_s)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.end_headers()

        do_GET = do_POST = do_PATCH = _answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


@pytest.mark.parametrize(("status", "delay_s"), [(507, 0.0), (503, 0.0), (200, 5.0)], ids=["full", "busy", "slow"])
def test_a_server_that_is_full_busy_or_slow_does_not_hold_up_a_stage(
    project: Path, store: Connect, monkeypatch: pytest.MonkeyPatch, status: int, delay_s: float
) -> None:
    with server(status, delay_s) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        processor = time.thread_time()
        started = time.monotonic()
        with open_stage_run("distill", DistillParams(), PublishParams()) as run:
            for step in range(200):
                run.log_metrics({"loss": 1 / (step + 1)}, step)
        # Machines of CI are busy; one answer of the slow server alone takes longer.
        assert time.monotonic() - started < 4.5
        assert time.thread_time() - processor < 1.0
        (path,) = unsent()
        assert has_left_behind(spool_folder()), "the sender gives up and keeps it"
    assert path.read_text(encoding="utf-8").count("\n") == 202
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert settle(PublishParams())[0] == 1
    history = store().client.get_metric_history(the_run(store(), "distill").info.run_id, "loss")
    assert [point.step for point in history] == list(range(200))

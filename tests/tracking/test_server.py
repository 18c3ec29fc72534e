"""A real `mlflow server`: killed in the middle of a stage, frozen, and started again."""

import signal
import time

from pocketbert.params import DistillParams, PublishParams
from pocketbert.tracking import open_stage_run
from pocketbert.tracking.delivery import deliver_left_behind
from pocketbert.tracking.location import spool_folder
from pocketbert.tracking.store import Store

from .conftest import history, the_run, unsent
from .server import Server


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

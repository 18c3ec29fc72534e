"""Kills, stores that do not answer and full disks: a stage goes on, and nothing is lost or doubled."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pocketbert.params import DistillParams, PublishParams
from pocketbert.tracking import open_stage_run
from pocketbert.tracking.delivery import deliver_left_behind
from pocketbert.tracking.location import spool_folder
from pocketbert.tracking.store import Store

from .conftest import first_seen, history, the_run, unsent

Connect = Callable[[], Store]
PUBLISH = PublishParams()
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def stage_script(body: str) -> list[str]:
    """A process that runs `body` inside a recorded stage."""
    script = f"""
import os, signal, sys, time
from pocketbert.params import Params
from pocketbert.tracking import open_stage_run
params = Params()
with open_stage_run(sys.argv[1], params.distill, params.publish) as run:
    {body}
"""
    return [sys.executable, "-c", script]


def test_delivering_again_doubles_nothing(project: Path, store: Connect) -> None:
    """Whatever was confirmed or not: position lost, and the same spool sent once more."""
    kept = project / "kept.jsonl"
    with open_stage_run("distill", DistillParams(), PUBLISH) as run:
        for step in range(700):
            run.log_metrics({"loss": float(step), "nan": float("nan")}, step)
        run.log_summary({"kind": "cut"})
        path = spool_folder() / f"{run.execution_id}.jsonl"
        os.link(path, kept)
    before = the_run(store(), "distill")
    assert unsent() == []
    # The same file, with the end that was added to it after it was linked.
    kept.rename(path)
    assert deliver_left_behind(spool_folder(), store()) == 1
    after = the_run(store(), "distill")
    # As text: NaN does not equal itself.
    assert str(after.to_dictionary()) == str(before.to_dictionary())
    assert history(store(), after.info.run_id, "loss") == [(step, float(step)) for step in range(700)]
    assert len(history(store(), after.info.run_id, "nan")) == 700
    assert unsent() == []
    assert run.execution_id not in {path.stem for path in spool_folder().iterdir()}


def test_a_killed_stage_is_closed_at_once(project: Path, store: Connect) -> None:
    body = "run.log_metrics({'loss': 1.0}, 1); os.kill(os.getpid(), signal.SIGKILL)"
    killed = subprocess.run([*stage_script(body), "teach"], cwd=project, env=ENVIRONMENT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert unsent() == []
    teach = the_run(store(), "teach")
    assert teach.info.status == "KILLED"
    assert "killed" in teach.data.tags["error"]
    assert teach.data.metrics == {"loss": 1.0}


def test_a_stage_killed_with_its_sender_is_closed_by_the_next(project: Path, store: Connect) -> None:
    body = "run.log_metrics({'loss': 1.0}, 1); time.sleep(300)"
    stage = subprocess.Popen([*stage_script(body), "teach"], cwd=project, env=ENVIRONMENT)
    assert first_seen(store(), "teach").info.status == "RUNNING"
    (sender,) = Path(f"/proc/{stage.pid}/task/{stage.pid}/children").read_text().split()
    os.kill(int(sender), signal.SIGKILL)
    stage.kill()
    stage.wait()
    assert the_run(store(), "teach").info.status == "RUNNING"
    with open_stage_run("distill", DistillParams(), PUBLISH):
        pass
    teach = the_run(store(), "teach")
    assert teach.info.status == "KILLED"
    assert teach.info.end_time >= teach.info.start_time
    assert teach.data.metrics == {"loss": 1.0}
    assert the_run(store(), "distill").info.status == "FINISHED"
    assert unsent() == []


def test_two_stages_meet_a_store_that_is_not_there_yet(workspace: Path) -> None:
    body = "[run.log_metrics({'loss': float(i)}, i) for i in range(300)]"
    stages = [
        subprocess.Popen([*stage_script(body), f"quantize/{i}"], cwd=workspace, env=ENVIRONMENT, stderr=subprocess.PIPE)
        for i in range(2)
    ]
    errors = [stage.communicate(timeout=120)[1].decode() for stage in stages]
    assert [stage.returncode for stage in stages] == [0, 0], errors
    assert errors == ["", ""]
    connected = Store(PUBLISH)
    for i in range(2):
        run = the_run(connected, f"quantize/{i}")
        assert run.info.status == "FINISHED"
        assert len(history(connected, run.info.run_id, "loss")) == 300
    assert sorted(path.name for path in workspace.glob("*mlflow*")) == ["mlflow.db"]


@pytest.mark.parametrize(
    "uri",
    ["http://127.0.0.1:9", "http://me:hunter2@127.0.0.1:9", "postgresql://me:hunter2@127.0.0.1:9/db", "nonsense://x"],
)
def test_an_unreachable_store_costs_no_time_and_loses_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with open_stage_run("distill", DistillParams(), PUBLISH) as run:
        run.log_metrics({"loss": 1.0}, 1)
    (path,) = unsent()
    said = capfd.readouterr().err
    assert "does not take the record" in said and "is kept in" in said
    kept = said + path.read_text()
    assert "hunter2" not in kept
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    deliver_left_behind(spool_folder(), Store(PUBLISH))
    assert the_run(Store(PUBLISH), "distill").data.metrics == {"loss": 1.0}


@pytest.mark.skipif(
    os.geteuid() != 0 and "CI" not in os.environ, reason="a full disk is a small tmpfs, which root alone can mount"
)
def test_a_full_disk_under_the_store_does_not_fail_the_stage(
    project: Path, store: Connect, capfd: pytest.CaptureFixture[str], small_disk: Path
) -> None:
    shutil.move(project / "mlflow.db", small_disk / "mlflow.db")
    (project / "mlflow.db").symlink_to(small_disk / "mlflow.db")
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 4096)
    with open_stage_run("distill", DistillParams(), PUBLISH) as run:
        for step in range(2000):
            run.log_metrics({"loss": 1.0}, step)
    assert len(unsent()) == 1
    assert "full" in capfd.readouterr().err
    filler.unlink()
    deliver_left_behind(spool_folder(), store())
    there = the_run(store(), "distill")
    assert there.info.status == "FINISHED"
    assert len(history(store(), there.info.run_id, "loss")) == 2000


def test_an_unwritable_spool_does_not_fail_the_stage(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    (project / ".pocketbert").write_text("in the way")
    with open_stage_run("distill", DistillParams(), PUBLISH) as run:
        run.log_metrics({"loss": 1.0}, 1)
    assert "not tracked" in caplog.text

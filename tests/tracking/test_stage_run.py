import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pocketbert.errors import TrainingError
from pocketbert.params import DistillParams, Params, PublishParams
from pocketbert.tracking import open_stage_run
from pocketbert.tracking.location import project_root, tracking_uri
from pocketbert.tracking.store import Store

from .conftest import first_seen, history, the_run, unsent

Connect = Callable[[], Store]
PUBLISH = PublishParams()
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_a_finished_stage(store: Connect) -> None:
    with open_stage_run("distill", DistillParams(), PUBLISH) as run:
        for step in range(1200):
            run.log_metrics({"loss": 1 / (step + 1)}, step)
        run.log_summary({"valid": {"accuracy": 0.9, "unknown": None}, "loss": 0.5, "kind": "cut"})
    there = the_run(store(), "distill")
    assert there.info.status == "FINISHED"
    assert there.data.tags["pocketbert.execution_id"] == run.execution_id
    assert there.data.tags["mlflow.source.name"].startswith("stages/distill.py")
    assert there.data.tags["kind"] == "cut"
    assert there.data.params["temperature"] == "2.0"
    assert there.data.params["student.layers"] == "3"
    assert there.data.metrics == {"valid.accuracy": 0.9, "loss": 0.5}
    assert len(history(store(), there.info.run_id, "loss")) == 1201
    assert unsent() == []


def test_metrics_are_seen_while_it_trains(store: Connect) -> None:
    with open_stage_run("distill", DistillParams(), PUBLISH) as run:
        run.log_metrics({"loss": 3.0}, 1)
        running = first_seen(store(), "distill")
        assert running.info.status == "RUNNING"
        assert history(store(), running.info.run_id, "loss") == [(1, 3.0)]


def test_a_failed_stage_says_why(store: Connect) -> None:
    with (
        pytest.raises(TrainingError),
        open_stage_run("distill", DistillParams(), PUBLISH),
    ):
        raise TrainingError("the loss is NaN at http://me:secret@host", "Lower the rate.")
    there = the_run(store(), "distill")
    assert there.info.status == "FAILED"
    assert there.data.tags["error"] == "TrainingError: the loss is NaN at http://***@host. Lower the rate."


def test_control_c_is_no_failure(store: Connect) -> None:
    with pytest.raises(KeyboardInterrupt), open_stage_run("distill", DistillParams(), PUBLISH):
        raise KeyboardInterrupt
    assert the_run(store(), "distill").info.status == "KILLED"


def test_metrics_never_raise(store: Connect, caplog: pytest.LogCaptureFixture) -> None:
    with open_stage_run("distill", DistillParams(), PUBLISH) as run:
        run.log_metrics({"good": np.float32(1.5), "bad": "word", "odd%name": 1, "x" * 400: 1.0}, 1)  # type: ignore[dict-item]
        run.log_metrics({"nan": float("nan"), "inf": float("inf")}, 2)
    metrics = the_run(store(), "distill").data.metrics
    assert metrics["good"] == 1.5
    assert metrics["odd_name"] == 1
    assert metrics["nan"] != metrics["nan"]
    assert metrics["inf"] > 1e300
    assert "bad at step 1 is no number" in caplog.text


def test_ambient_mlflow_variables_do_not_redirect_the_run(store: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    with open_stage_run("distill", DistillParams(), PUBLISH) as run:
        run.log_metrics({"loss": 1.0}, 1)
    assert the_run(store(), "distill").info.run_id != "0" * 32


def test_publish_has_no_run_of_its_own(store: Connect) -> None:
    with open_stage_run("publish", Params(), PUBLISH) as run:
        run.log_summary({"a": 1})
    assert unsent() == []
    assert store().find_runs("pocketbert.stage", "publish") == []


def test_mlflow_is_not_imported_where_a_stage_would_wait_for_it() -> None:
    script = (
        "import sys, pocketbert.stage, pocketbert.tracking; print({'mlflow', 'torch', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_throw_away_experiment_keeps_its_record_in_the_project(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = workspace / ".dvc" / "tmp" / "exps" / "standard" / "tmpabc"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert project_root() == workspace
    assert tracking_uri(PUBLISH) == f"sqlite:///{workspace}/mlflow.db"

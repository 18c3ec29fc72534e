"""Publishing again: nothing changes that has not changed, and nothing heavy is imported for it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pocketbert.errors import TrackingError
from pocketbert.params import Params
from pocketbert.tracking.store import STATE_TAG, Store

from .built import PARAMS, everything, lock_entry, publish, run_recorded, write, write_lock
from .conftest import the_run
from .server import Server

Connect = Callable[[], Store]


@pytest.mark.parametrize("remembered", [True, False])
def test_publishing_twice_changes_nothing(built: Path, store: Connect, remembered: bool) -> None:
    first = publish()
    if not remembered:
        shutil.rmtree(built / ".pocketbert/published")
    before = everything(store())
    # `publish` itself has been added to dvc.lock since.
    write_lock({"distill": lock_entry("distill"), "publish": lock_entry("publish")})
    write("provenance/publish.json", '{"stage": "publish", "execution_id": "x"}')
    write("metrics/publish.json", '{"params": 7}')
    assert publish() == first
    assert everything(store()) == before


class Asked(Exception):
    """MLflow was imported."""


@pytest.fixture
def published(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published pipeline; from now on, importing mlflow raises Asked."""
    publish()
    refuse_mlflow(monkeypatch)
    return built


def refuse_mlflow(patch: pytest.MonkeyPatch) -> None:
    def ask() -> None:
        raise Asked

    patch.setattr("pocketbert.tracking.publish.import_mlflow", ask)


def test_an_unchanged_state_needs_no_mlflow(published: Path) -> None:
    kept = Path("published/publish.json").read_text(), Path("published/regressions.json").read_text()
    publish()
    assert (Path("published/publish.json").read_text(), Path("published/regressions.json").read_text()) == kept


@pytest.mark.parametrize(
    "name",
    [
        "params.yaml", "dvc.yaml", "dvc.lock", "report/index.html", "report/new.html", "metrics/distill.json",
        "provenance/distill.json", "models/tflite/model.bin", "models/onnx/tokenizer.json",
        "results/benchmark/local/benchmark.json", ".pocketbert/spool/left.jsonl",
    ],
)  # fmt: skip
def test_any_file_that_it_reads_is_a_change(published: Path, name: str) -> None:
    path = Path(name)
    before = path.read_text() if path.exists() else ""
    write(name, before.replace("stages.distill", "stages.other") if name == "dvc.lock" else before + " ")
    with pytest.raises(Asked):
        publish()


def test_any_write_to_the_store_is_a_change(published: Path, store: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    connected = store()
    publish()
    (run,) = connected.find_runs("pocketbert.stage", "distill")
    connected.tag(run.info.run_id, {"note": "by hand"})
    with pytest.raises(Asked):
        publish()


def test_a_server_is_asked_without_mlflow_and_any_answer_that_counts_is_a_change(
    built: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    first = publish()
    connected = Store(PARAMS.publish)
    (other,) = connected.find_runs("pocketbert.stage", "distill")

    def changes(change: Callable[[], object]) -> bool:
        """Whether mlflow is needed after a change; the change is published."""
        change()
        with monkeypatch.context() as patch:
            refuse_mlflow(patch)
            try:
                publish()
            except Asked:
                pass
            else:
                return False
        publish()
        return True

    assert not changes(lambda: None)
    assert not changes(lambda: connected.tag(other.info.run_id, {"note": "of a stage"}))
    assert changes(lambda: connected.tag(first["run_id"], {"note": "by hand"}))
    assert changes(lambda: connected.client.set_registered_model_alias("pocketbert-tflite-fp16", "best", "1"))
    assert changes(lambda: connected.client.create_run(connected.experiment_id, tags={STATE_TAG: "another's"}))
    assert publish() == first
    assert changes(lambda: connected.client.delete_run(first["run_id"]))
    assert not changes(lambda: None)
    server.stop()
    with pytest.raises(TrackingError, match="cannot be used"):
        publish()


def test_another_store_is_a_change(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = published / "mlflow.db"
    shutil.copy(database, published / "copy.db")
    (published / "copy.db").replace(database)
    with pytest.raises(Asked):
        publish()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match="cannot be used"):
        publish()


def test_another_state_is_another_run_and_cached_stages_are_linked_to_it(built: Path, store: Connect) -> None:
    first = publish()
    changed = Params.model_validate({**PARAMS.model_dump(by_alias=True), "report": {"worst_classes": 3}})
    second = publish(changed)
    assert second["run_id"] != first["run_id"]
    tags = store().client.get_run(second["run_id"]).data.tags
    distill = the_run(store(), "distill")
    assert tags["stage.distill"] == distill.info.run_id
    assert distill.data.tags["mlflow.parentRunId"] == first["run_id"]
    assert second["registered"] == first["registered"]


def test_a_stage_made_anew_in_the_same_state_updates_its_run(built: Path, store: Connect) -> None:
    first = publish()
    entry = lock_entry("distill")
    entry["outs"][1]["md5"] = entry["outs"][2]["md5"] = "e" * 32
    write_lock({"distill": entry})
    # Other durations: the state is the same one.
    again = run_recorded("distill", PARAMS.distill)
    write("metrics/distill.json", '{"size_bytes": 8}')
    assert publish() == first
    run = store().client.get_run(first["run_id"])
    distill = store().client.get_run(run.data.tags["stage.distill"])
    assert distill.data.tags["pocketbert.execution_id"] == again
    assert run.data.metrics["distill.size_bytes"] == 8
    provenance = store().client.download_artifacts(first["run_id"], "provenance/distill.json")
    assert json.loads(Path(provenance).read_text())["execution_id"] == again

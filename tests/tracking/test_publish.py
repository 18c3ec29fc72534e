import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pocketbert.errors import TrackingError
from pocketbert.tracking.store import Store

from .built import (
    FOLDERS,
    PARAMS,
    artifact_names,
    everything,
    lock_entry,
    publish,
    run_recorded,
    write,
    write_lock,
    write_model,
)
from .conftest import the_run

Connect = Callable[[], Store]


def test_the_parent_run_holds_everything(built: Path, store: Connect) -> None:
    document = publish()
    run = store().client.get_run(document["run_id"])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"cut-3 {document['state'][:7]}"
    assert run.data.params["distill.temperature"] == "2.0"
    assert run.data.params["quantize.recipes.tflite-fp16.recipe"] == "fp16"
    assert run.data.metrics == {
        "distill.size_bytes": 7,
        "quantize.tflite-fp16.size_bytes": 7,
        "tflite-fp16.local.accuracy": 0.95,
        "tflite-fp16.local.latency_p50_ms": 3.5,
    }
    assert run.data.tags["distill.nested.word"] == "gpu"
    assert set(artifact_names(store(), document["run_id"])) == {
        "report/index.html", "report/MODEL_CARD.md", "report/results.csv", "params.yaml", "dvc.yaml", "dvc.lock",
        "provenance/distill.json", "provenance/quantize/tflite-fp16.json",
        "models/tflite-fp16/model.bin", "models/tflite-fp16/artifact.json", "models/tflite-fp16/tokenizer.json",
        "models/tflite-fp32/model.bin", "models/tflite-fp32/artifact.json", "models/tflite-fp32/tokenizer.json",
    }  # fmt: skip


def choose(name: str | None) -> None:
    write("report/choice.json", json.dumps({"chosen": name, "reason": f"{name} is the fastest"}))


def test_the_chosen_artifact_alone_has_the_alias(built: Path, store: Connect) -> None:
    def aliases() -> dict[str, Any]:
        # Version numbers are int or str, depending on the store.
        models = store().client.search_registered_models()
        return {m.name: str(m.aliases["chosen"]) if "chosen" in m.aliases else None for m in models}

    # Chosen, therefore registered, although no pattern names it.
    choose("onnx-fp32")
    document = publish()
    tags = store().client.get_run(document["run_id"]).data.tags
    assert tags["pocketbert.chosen"] == "onnx-fp32"
    assert tags["pocketbert.chosen_reason"] == "onnx-fp32 is the fastest"
    none = dict.fromkeys(("pocketbert-onnx-fp32", "pocketbert-tflite-fp16", "pocketbert-tflite-fp32"))
    assert aliases() == none | {"pocketbert-onnx-fp32": "1"}
    before = everything(store())
    publish()
    assert everything(store()) == before
    choose("tflite-fp16")
    publish()
    assert aliases() == none | {"pocketbert-tflite-fp16": "1"}
    choose(None)
    publish()
    assert aliases() == none


def test_stage_runs_are_its_children(built: Path, store: Connect) -> None:
    document = publish()
    tags = store().client.get_run(document["run_id"]).data.tags
    for stage in ("distill", "quantize/tflite-fp16"):
        child = the_run(store(), stage)
        assert tags[f"stage.{stage}"] == child.info.run_id
        assert child.data.tags["mlflow.parentRunId"] == document["run_id"]


def test_each_file_of_weights_is_one_version(built: Path, store: Connect) -> None:
    first = publish()
    assert [(v["model"], v["version"]) for v in first["registered"]] == [
        ("pocketbert-tflite-fp32", "1"),
        ("pocketbert-tflite-fp16", "1"),
    ]
    write_model(FOLDERS[2], "tflite-fp16", "other weights")
    changed = lock_entry("distill", cmd="python -m stages.distill --other")
    write_lock({"distill": changed})
    second = publish()
    assert [(v["model"], v["version"]) for v in second["registered"]] == [
        ("pocketbert-tflite-fp32", "1"),
        ("pocketbert-tflite-fp16", "2"),
    ]
    version = store().client.get_model_version("pocketbert-tflite-fp16", "2")
    assert version.run_id == second["run_id"]
    weights = store().client.download_artifacts(second["run_id"], "models/tflite-fp16/model.bin")
    assert Path(weights).read_text() == "other weights"


def test_a_run_that_another_store_holds_is_named(built: Path, store: Connect) -> None:
    write("provenance/teach.json", json.dumps({"stage": "teach", "execution_id": "ee"}))
    tags = store().client.get_run(publish()["run_id"]).data.tags
    assert tags["stage.teach"] == "execution ee"


def test_without_a_lock_the_report_is_the_key(built: Path, store: Connect, caplog: pytest.LogCaptureFixture) -> None:
    Path("dvc.lock").unlink()
    first = publish()
    assert "no dvc.lock" in caplog.text
    assert publish()["run_id"] == first["run_id"]
    write("report/index.html", "<html>other</html>")
    assert publish()["run_id"] != first["run_id"]


def test_an_unreachable_store_is_one_clear_line_and_loses_nothing(
    built: Path, store: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9")
    run_recorded("teach", PARAMS.teach)
    monkeypatch.setattr("pocketbert.tracking.publish._RETRIES", 0)
    with pytest.raises(TrackingError) as raised:
        publish()
    message = str(raised.value)
    assert "http://***@127.0.0.1:9" in message and "dvc repro publish" in message
    assert "hunter2" not in message and "\n" not in message
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    document = publish()
    assert the_run(store(), "teach").data.tags["mlflow.parentRunId"] == document["run_id"]


def test_no_password_is_published(built: Path, store: Connect) -> None:
    write("params.yaml", "publish: {tracking_uri: 'http://me:hunter2@127.0.0.1:9'}\n")
    write("dvc.yaml", "# http://me:hunter2@127.0.0.1:9\nstages: {}\n")
    write_lock({"distill": lock_entry("distill", cmd="curl http://me:hunter2@127.0.0.1:9")})
    document = publish()
    assert "hunter2" not in everything(store())
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        path = store().client.download_artifacts(document["run_id"], name)
        assert "hunter2" not in Path(path).read_text()

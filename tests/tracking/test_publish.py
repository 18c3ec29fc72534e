import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pocketbert.artifacts import ArtifactCard
from pocketbert.errors import TrackingError
from pocketbert.params import Params, PublishParams, Section, parse_params
from pocketbert.provenance import write_provenance
from pocketbert.tracking import open_stage_run, publish_pipeline
from pocketbert.tracking.store import Store

from .conftest import the_run

Connect = Callable[[], Store]
PARAMS = parse_params({"quantize": {"recipes": {"tflite-fp16": {"format": "tflite", "recipe": "fp16"}}}}, Path("x"))
REPORT = Path("report")
FOLDERS = [Path("models/onnx"), Path("models/tflite"), Path("models/quantized/tflite-fp16")]
COLUMNS = "artifact,format,device,accuracy,latency_p50_ms,power_mean_mw\n"


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


def write_model(folder: Path, name: str, weights: str) -> None:
    card = ArtifactCard(name=name, format="onnx", model_file="model.bin", max_length=8)
    write(f"{folder}/artifact.json", card.model_dump_json())
    write(f"{folder}/model.bin", weights)
    write(f"{folder}/tokenizer.json", "{}")


def lock_entry(name: str, **more: str) -> dict[str, Any]:
    outs = [{"path": f"models/{name}", "md5": "a" * 32}, {"path": f"provenance/{name}.json", "md5": "b" * 32}]
    outs.append({"path": f"metrics/{name}.json", "md5": "c" * 32})
    return {"cmd": f"python -m stages.{name}", "deps": [{"path": "data", "md5": "d" * 32}], "outs": outs, **more}


def write_lock(stages: dict[str, Any]) -> None:
    with Path("dvc.lock").open("w", encoding="utf-8") as stream:
        YAML(typ="safe").dump({"schema": "2.0", "stages": stages}, stream)


def run_recorded(stage: str, params: Section) -> str:
    """A stage as `pocketbert.stage` runs it; returns its execution id."""
    with open_stage_run(stage, params, PublishParams()) as run:
        run.log_summary({"size_bytes": 7})
        write(f"metrics/{stage}.json", json.dumps({"size_bytes": 7, "nested": {"unknown": None, "word": "gpu"}}))
        write_provenance(
            Path(f"provenance/{stage}.json"),
            stage=stage, params=params, input_hash="0", execution_id=run.execution_id, started=0.0,
        )  # fmt: skip
        return run.execution_id


@pytest.fixture(scope="session")
def built_once(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline whose stages ran, in miniature."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run_recorded("distill", PARAMS.distill)
        run_recorded("quantize/tflite-fp16", PARAMS.quantize)
        # Left by a recipe that params.yaml no longer has.
        write("metrics/quantize/gone.json", '{"size_bytes": 1}')
        for model, name in zip(FOLDERS, ("onnx-fp32", "tflite-fp32", "tflite-fp16"), strict=True):
            write_model(model, name, f"weights of {name}")
        write("report/index.html", "<html></html>")
        write("report/MODEL_CARD.md", "# card")
        write("report/results.csv", COLUMNS + "tflite-fp16,tflite,local,0.95,3.5,\n")
        write("params.yaml", "distill: {temperature: 2.0}\n")
        write("dvc.yaml", "stages: {}\n")
        write_lock({"distill": lock_entry("distill")})
    return folder


@pytest.fixture
def built(project: Path, built_once: Path) -> Path:
    """A copy of it as the working folder. (Artifacts of all copies lie in the folder of the first.)"""
    shutil.copytree(built_once, project, dirs_exist_ok=True)
    return project


def publish(params: Params = PARAMS) -> dict[str, Any]:
    shutil.rmtree("published", ignore_errors=True)
    publish_pipeline(params, REPORT, FOLDERS, Path("published"))
    document: dict[str, Any] = json.loads(Path("published/publish.json").read_text())
    return document


def artifact_names(store: Store, run_id: str, folder: str = "") -> dict[str, int | None]:
    """Name and size of every file of a run."""
    names: dict[str, int | None] = {}
    for entry in store.client.list_artifacts(run_id, folder):
        names |= artifact_names(store, run_id, entry.path) if entry.is_dir else {entry.path: entry.file_size}
    return names


def everything(store: Store) -> str:
    """All runs, files and model versions of a store, as text (NaN does not equal itself)."""
    runs = store.client.search_runs([store.experiment_id])
    files = {run.info.run_id: artifact_names(store, run.info.run_id) for run in runs}
    histories = {
        (run.info.run_id, key): [str(p) for p in store.client.get_metric_history(run.info.run_id, key)]
        for run in runs
        for key in run.data.metrics
    }
    versions = [dict(version) for version in store.client.search_model_versions()]
    models = [dict(model) for model in store.client.search_registered_models()]
    return str(([run.to_dictionary() for run in runs], files, histories, versions, models))


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


def test_publishing_twice_changes_nothing(built: Path, store: Connect) -> None:
    first = publish()
    before = everything(store())
    # `publish` itself has been added to dvc.lock since.
    write_lock({"distill": lock_entry("distill"), "publish": lock_entry("publish")})
    write("provenance/publish.json", '{"stage": "publish", "execution_id": "x"}')
    write("metrics/publish.json", '{"params": 7}')
    assert publish() == first
    assert everything(store()) == before


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

"""A built pipeline in miniature, and what a store then holds."""

import json
import shutil
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pocketbert.artifacts import ArtifactCard
from pocketbert.params import Params, PublishParams, Section, parse_params
from pocketbert.provenance import write_provenance
from pocketbert.tracking import open_stage_run, publish_pipeline
from pocketbert.tracking.store import Store

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


def build() -> None:
    """Everything that `publish` reads, in the working folder."""
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

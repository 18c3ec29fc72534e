"""Rows of models at the far end of a link: real servers, the device's own runtimes, its GPU (a software driver)."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.data.dataset import Split
from pocketbert.devices.benchmark import benchmark_artifacts
from pocketbert.export.tflite import export_tflite
from pocketbert.params import BenchmarkParams, ExportTfliteParams
from pocketbert.partition.cuts import smallest_limit_bytes
from pocketbert.partition.divide import divide, write_artifact_in_parts
from pocketbert.partition.lifetime import Schedule
from pocketbert.partition.model import read_graph
from pocketbert.partition.needs import MB, need_of
from tests.devices.links.adbd import Adbd
from tests.devices.links.gpu_driver import breaking_driver
from tests.devices.links.sshd import Sshd
from tests.export.trained import SEQUENCE_LENGTH, exported, make_texts

PARAMS = BenchmarkParams(
    runs=10, rounds=1, warmup=1, sequence_length=SEQUENCE_LENGTH, proof_rows=8, accuracy_rows=16, timeout_s=120
)
TEXTS, TARGETS = make_texts(24, seed=5)
SPLIT = Split(TEXTS, TARGETS.numpy())
SOFTWARE = {"driver": "vulkan", "precisions": ["fp16", "fp32"], "software_gpu": True}


def student() -> Artifact:
    torch = read_artifact(exported("bert").classifier)
    return Artifact(folder=torch.folder, card=torch.card.model_copy(update={"name": "student"}))


def measure(
    server: Sshd | Adbd, project: Path, artifacts: list[Artifact], params: BenchmarkParams = PARAMS, **changes: Any
) -> dict[str, dict[str, Any]]:
    """Rows by artifact and GPU precision, as `dvc repro benchmark@board` makes them."""
    entry = server.params(python=sys.executable, **changes).model_dump(mode="json", exclude_unset=True)
    (project / "devices.yaml").write_text(json.dumps({"devices": {"board": entry}}), encoding="utf-8")
    benchmark_artifacts(params, "board", [student(), *artifacts], SPLIT, project / "results")
    document = json.loads((project / "results/benchmark.json").read_text(encoding="utf-8"))
    assert document["device"]["error"] is None
    rows = {f"{row['artifact']} {row['gpu_precision'] or 'cpu'}": row for row in document["rows"]}
    assert "torch" in rows.pop("student cpu")["error"]
    return rows


def parted(source: Artifact, folder: Path) -> Artifact:
    """The model as `pocketbert partition` cuts it."""
    schedule = Schedule(read_graph(source.model_path))
    whole = need_of(schedule, 0, len(schedule.steps)).total_bytes
    limit = (smallest_limit_bytes(schedule) + whole) / 2 / MB
    write_artifact_in_parts(source, divide(source.model_path, limit), folder)
    return renamed(read_artifact(folder), "in-parts")


def with_host_tables(folder: Path) -> Artifact:
    """The graph that reads embeddings, its tables beside it."""
    params = ExportTfliteParams(sequence_length=SEQUENCE_LENGTH, profile="embeddings")
    export_tflite(params, exported("bert").classifier, folder)
    assert (folder / "host_embeddings.npy").is_file()
    return renamed(read_artifact(folder), "host-tables")


def with_external_data(source: Artifact, folder: Path) -> Artifact:
    """An ONNX model whose tensors lie in a file beside it, under a name that needs quoting."""
    shutil.copytree(source.folder, folder)
    model, place = onnx.load(source.model_path), folder / source.card.model_file
    place.unlink()
    onnx.save(model, place, save_as_external_data=True, location="its $(weights) 'x", size_threshold=0)
    assert place.stat().st_size < source.size_bytes / 2
    return renamed(read_artifact(folder), "external-data")


def renamed(artifact: Artifact, name: str) -> Artifact:
    return Artifact(folder=artifact.folder, card=artifact.card.model_copy(update={"name": name}))


def is_proven(row: dict[str, Any], rel_diff: float = 1e-4) -> bool:
    """Whether a row has its proof and its accuracy."""
    assert row["error"] is None
    # A driver in software is proven, not timed.
    runs = 10 if row["accelerator"] == "cpu" else 1
    assert (row["agreement"], row["device_accuracy_rows"], row["runs"]) == (1.0, 16, runs)
    return bool(row["logit_rel_diff"] < rel_diff and row["device_accuracy"] > 0.8)


def is_a_software_gpu_s(row: dict[str, Any]) -> bool:
    """Whether all operators ran on the GPU in one piece, and no time is told."""
    assert (row["accelerator"], row["partitions"], row["delegated_ops"]) == ("gpu", 1, row["total_ops"])
    return bool("llvmpipe" in row["gpu_adapter"] and row["latency_p50_ms"] is None and row["latency_p99_ms"] is None)


def test_a_board_measures_its_processor_and_its_gpu_in_an_environment_of_its_own(sshd: Sshd, project: Path) -> None:
    """Wheels that this machine resolved, and nothing else: LiteRT and numpy are all that the GPU's rows need."""
    rows = measure(sshd, project, [read_artifact(exported("bert").tflite)], gpu=SOFTWARE, environment="wheels")
    assert set(rows) == {"tflite-fp32 cpu", "tflite-fp32 fp16", "tflite-fp32 fp32"}
    assert is_proven(rows["tflite-fp32 cpu"])
    assert rows["tflite-fp32 cpu"]["latency_p50_ms"] > 0
    assert is_proven(rows["tflite-fp32 fp32"])
    assert is_a_software_gpu_s(rows["tflite-fp32 fp32"])
    assert is_proven(rows["tflite-fp32 fp16"], 1e-2)
    assert is_a_software_gpu_s(rows["tflite-fp32 fp16"])
    # Else it did not compute in halves.
    assert rows["tflite-fp32 fp16"]["logit_rel_diff"] > 1e-5
    made = next((sshd.device / "environments").glob("*/environment.json"))
    interpreter = json.loads(made.read_text(encoding="utf-8"))["interpreter"]
    code = "import importlib.util; print(importlib.util.find_spec('pocketbert'))"
    assert subprocess.run([interpreter, "-c", code], capture_output=True, text=True, cwd=project).stdout == "None\n"


@pytest.mark.parametrize("kind", ["sshd", "adbd"])
def test_files_that_a_model_needs_beside_it_are_there(kind: str, request: pytest.FixtureRequest, project: Path) -> None:
    models = exported("bert")
    artifacts = [
        parted(read_artifact(models.tflite), project / "parts"),
        with_host_tables(project / "host"),
        with_external_data(read_artifact(models.onnx), project / "onnx"),
    ]
    gpu = SOFTWARE | {"precisions": ["fp32"]}
    rows = measure(request.getfixturevalue(kind), project, artifacts, gpu=gpu, environment="own")
    for name in ("in-parts cpu", "host-tables cpu", "external-data cpu", "host-tables fp32"):
        assert is_proven(rows.pop(name)), name
    parts = rows.pop("in-parts fp32")
    assert "parts run on the processor" in parts["error"]
    assert not rows


BROKEN = {
    "crash": ("abort()", r"the worker was killed by SIGABRT: the driver breaks at submission 20"),
    "hang": ("for (;;) sleep(1000)", r"the worker did not answer within 6 s and was killed"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_driver_that_breaks_in_mid_run_costs_its_own_row(how: str, sshd: Sshd, project: Path) -> None:
    statement, words = BROKEN[how]
    gpu = SOFTWARE | {"precisions": ["fp32"], "icd": str(breaking_driver(project, statement, after=20))}
    params = PARAMS.model_copy(update={"timeout_s": 6 if how == "hang" else 120})
    rows = measure(sshd, project, [read_artifact(exported("bert").tflite)], params, gpu=gpu, environment="own")
    assert is_proven(rows["tflite-fp32 cpu"])
    assert rows["tflite-fp32 fp32"]["accelerator"] == "gpu"
    assert re.search(words, rows["tflite-fp32 fp32"]["error"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"icd": "/nonexistent.json"}, "no GPU was found: no Vulkan adapter answers. Install the GPU's Vulkan driver"),
        ({"software_gpu": False}, "the GPU is a driver in software: llvmpipe"),
    ],
)
def test_a_row_without_a_gpu_says_why(changes: dict[str, Any], words: str, sshd: Sshd, project: Path) -> None:
    gpu = SOFTWARE | {"precisions": ["fp16"]} | changes
    rows = measure(sshd, project, [read_artifact(exported("bert").tflite)], gpu=gpu, environment="own")
    assert is_proven(rows["tflite-fp32 cpu"])
    assert words in rows["tflite-fp32 fp16"]["error"]


@pytest.mark.parametrize("kind", ["small_sshd", "small_adbd"])
def test_a_model_that_finds_no_room_costs_its_own_row(kind: str, request: pytest.FixtureRequest, project: Path) -> None:
    server = request.getfixturevalue(kind)
    large = with_external_data(read_artifact(exported("bert").onnx), project / "large")
    with next(large.folder.glob("its*")).open("ab") as stream:
        stream.truncate(40 << 20)
    artifacts = [renamed(large, "too-large"), read_artifact(exported("bert").onnx)]
    rows = measure(server, project, artifacts, environment="own", work=str(server.small / "rows"))
    assert is_proven(rows["onnx-fp32 cpu"])
    assert "no space left" in rows["too-large cpu"]["error"]

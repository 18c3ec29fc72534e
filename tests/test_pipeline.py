"""The whole line on the tiny profile, as a user drives it. The tests share one project and run in this order."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.conftest import Project

pytestmark = pytest.mark.e2e

COLUMNS = (  # noqa: SIM905 (a list of 24 literals is harder to read)
    "artifact format recipe device runtime accelerator precision sequence_length threads size_bytes accuracy macro_f1 "
    "accuracy_drop logit_max_abs_diff logit_rel_diff latency_p50_ms latency_p90_ms memory_peak_bytes cpu_percent "
    "power_mean_mw delegated_ops total_ops partitions md5"
).split()
ARTIFACTS = {
    "teacher": "models/teacher",
    "student": "models/classifier",
    "onnx-fp32": "models/onnx",
    "tflite-fp32": "models/tflite",
    "onnx-fp16": "models/quantized/onnx-fp16",
    "onnx-dynamic_int8": "models/quantized/onnx-dynamic_int8",
    "tflite-fp16": "models/quantized/tflite-fp16",
    "tflite-dynamic_wi8_afp32": "models/quantized/tflite-dynamic_wi8_afp32",
    "tflite-dynamic_wi4_afp32": "models/quantized/tflite-dynamic_wi4_afp32",
    "tflite-static_wi8_ai8": "models/quantized/tflite-static_wi8_ai8",
}
BEHIND_DISTILL = {
    "distill", "finetune", "qat", "export_onnx", "export_tflite", "validate", "evaluate", "delegate",
    "benchmark@local", "report",
    "publish", *(f"quantize@{name}" for name in list(ARTIFACTS)[4:]),
}  # fmt: skip

ALL_STAGES = BEHIND_DISTILL | {"prepare", "augment", "teach", "soften"}


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


def rows(project: Project) -> list[dict[str, str]]:
    with (project.root / "report/results.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def wait_for(condition: object, seconds: float, what: str) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.1)
    pytest.fail(f"{what}: not within {seconds} s")


def readme_commands() -> list[str]:
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line.split("   #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def said(tiny_project: Project) -> dict[str, str]:
    """What each command of the README printed, in their order."""
    found = {}
    for command in readme_commands():
        if command == "make test":
            # This test runs under it; that it is pytest behind the linters is all that is left to see.
            found[command] = tiny_project.run("make", "--dry-run", "test").stdout
            assert "pytest" in found[command]
        elif command == "make ui":
            found[command] = serve_ui(tiny_project)
        elif command == "make up":
            # tests/flows starts the servers for real; here: that the target exists and calls them.
            found[command] = tiny_project.run("make", "--dry-run", "up").stdout
            assert "flows.up" in found[command]
        else:
            found[command] = tiny_project.run("bash", "-c", command).stdout
    return found


def serve_ui(project: Project) -> str:
    """`make ui` until its page answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        ["make", "ui", f"UI_PORT={port}"], cwd=project.root, env=project.environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as page:
                return b"MLflow" in page.read()
        except OSError:
            return False

    try:
        wait_for(answers, 60, "MLflow's page")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=20)
    return "MLflow"


def test_one_repro_builds_every_artifact_with_its_proof(tiny_project: Project) -> None:
    table = rows(tiny_project)
    assert list(table[0])[: len(COLUMNS)] == COLUMNS
    assert {row["artifact"] for row in table} == set(ARTIFACTS)
    for row in table:
        assert float(row["accuracy"]) > 0.5, row
        assert float(row["latency_p50_ms"]) > 0
        assert int(row["size_bytes"]) > 0
        assert int(row["memory_peak_bytes"]) > 0
        assert row["delegated_ops"] == ""
    exports = [row for row in table if row["artifact"] in ("onnx-fp32", "tflite-fp32")]
    assert all(float(row["logit_rel_diff"]) < 1e-4 for row in exports)


def test_a_second_repro_redoes_nothing(tiny_project: Project) -> None:
    done = tiny_project.run("dvc", "repro")
    assert stages_run(done.stdout) == set()
    assert tiny_project.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."


def test_every_artifact_predicts(tiny_project: Project) -> None:
    labels = json.loads((tiny_project.root / "data/prepared/labels.json").read_text(encoding="utf-8"))["labels"]
    for folder in ARTIFACTS.values():
        done = tiny_project.run(
            "pocketbert", "predict", "--json", "--model", folder, input="red running shoes\nusb cable\n"
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(lines) == 2
        for line in lines:
            assert line["run_ms"] > 0
            assert 0 < line["labels"][0]["probability"] <= 1
            assert line["labels"][0]["label"] in labels


def test_report_is_self_contained(tiny_project: Project) -> None:
    page = (tiny_project.root / "report/index.html").read_text(encoding="utf-8")
    fetched = re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)([^"']+)""", page)
    assert [target for target in fetched if "://" in target] == []
    assert "<svg" in page
    assert (tiny_project.root / "report/MODEL_CARD.md").stat().st_size > 500


def test_everything_is_tracked_and_publishing_again_changes_nothing(tiny_project: Project) -> None:
    from mlflow import MlflowClient

    def snapshot() -> tuple[object, ...]:
        client = MlflowClient(f"sqlite:///{tiny_project.root}/mlflow.db")
        experiment = client.get_experiment_by_name("pocketbert")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
        parents = [r for r in runs if "pocketbert.state" in r.data.tags]
        assert len(parents) == 1
        versions = sorted((v.name, v.version) for v in client.search_model_versions(""))
        data = parents[0].data
        return (
            data.params,
            data.metrics,
            versions,
            {r.info.run_id for r in runs if r.data.tags.get("stage") != "publish"},
        )

    before = snapshot()
    assert len(before[0]) > 50  # type: ignore[arg-type]
    tiny_project.run("dvc", "repro", "--force", "--single-item", "publish")
    after = snapshot()
    assert after[:3] == before[:3]


def test_a_param_of_the_report_reruns_the_report_and_no_more(tiny_project: Project) -> None:
    done = tiny_project.run("dvc", "exp", "run", "-S", "report.worst_classes=4")
    assert stages_run(done.stdout) == {"report", "publish"}


def test_readme_s_commands_run(said: dict[str, str]) -> None:
    assert {"make repro", "make test", "make ui", "make up", "dvc repro"} <= set(said)
    # The state is built; what README asks for changes nothing of it but by `dvc exp run`.
    assert stages_run(said["make repro"]) == stages_run(said["dvc repro"]) == set()


def test_another_temperature_reruns_what_is_behind_distill(said: dict[str, str], tiny_project: Project) -> None:
    assert stages_run(said["dvc exp run -S distill.temperature=4"]) == BEHIND_DISTILL
    shown = tiny_project.run("dvc", "exp", "show", "--json")
    assert "distill" in shown.stdout
    difference = json.loads(tiny_project.run("dvc", "params", "diff", "--json").stdout)
    changed = difference["params.yaml"]["distill.temperature"]
    assert (changed["old"], changed["new"]) == (2.0, 4)


def test_the_flow_shows_an_up_to_date_pipeline_as_cached(tiny_project: Project, tmp_path: Path) -> None:
    project = Project(tiny_project.root, {"PREFECT_HOME": str(tmp_path)})
    project.run("dvc", "repro")
    done = project.run("python", "-m", "flows.rebuild")
    log = done.stdout + done.stderr
    assert set(re.findall(r"Finished in state Cached\('(\S+) is up to date'", log)) == ALL_STAGES
    assert "Finished in state Completed()" in log


def test_a_killed_distill_leaves_nothing_half_made_and_resumes(tiny_project: Project) -> None:
    root = tiny_project.root
    tiny_project.run("pocketbert", "params", "merge", "/dev/stdin", input="distill: {epochs: 12}\n")
    log = (root / "killed.log").open("w", encoding="utf-8")
    dvc = subprocess.Popen(["dvc", "repro", "distill"], cwd=root, env=tiny_project.environment, stdout=log, stderr=log)
    checkpoints = root / ".pocketbert/checkpoints/distill"
    wait_for(lambda: list(checkpoints.glob("*/checkpoint-*/complete")), 120, "a checkpoint of distill")
    trainer = [p for p in psutil.Process(dvc.pid).children(recursive=True) if "stages.distill" in p.cmdline()]
    assert trainer
    dvc.send_signal(signal.SIGKILL)
    dvc.wait()
    wait_for(lambda: not any(p.is_running() and p.status() != "zombie" for p in trainer), 10, "the end of the orphan")
    assert not (root / "models/student").exists()
    done = tiny_project.run("dvc", "repro", "distill")
    assert re.search(r"going on from \S+/checkpoint-[1-9]", done.stdout + done.stderr)
    assert json.loads((root / "metrics/distill.json").read_text(encoding="utf-8"))["valid_accuracy"] > 0.5
    leftovers = [p for p in root.rglob(".*.tmp") if ".dvc" not in p.parts and ".git" not in p.parts]
    assert leftovers == []
    assert not checkpoints.exists()

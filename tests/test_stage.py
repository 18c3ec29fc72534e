import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pocketbert.errors import (
    BudgetError,
    DataError,
    ParamsError,
    PocketBertError,
    StorageError,
    TrainingError,
)
from pocketbert.params import DistillParams, Params, QuantizeParams
from pocketbert.stage import STATE_FOLDER, Metrics, current_stage, execute, run_stage

ROOT = Path(__file__).parent.parent
# No server listens there: what these stages record stays in their spool.
NO_STORE = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Inputs:
    data: Path = Path("data/in")


@dataclass(frozen=True)
class Outputs:
    model: Path = Path("models/out")
    table: Path = Path("results/{variant}.csv")


@dataclass(frozen=True)
class OneOutput:
    model: Path = Path("models/out")


@dataclass(frozen=True)
class TwoOutputs:
    one: Path = Path("results/one")
    two: Path = Path("results/two")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NO_STORE)
    Path("params.yaml").write_text("distill: {temperature: 4.0, seed: 7}\n")
    Path("data/in").mkdir(parents=True)
    Path("data/in/rows").write_text("1")
    return tmp_path


def distill(params: DistillParams, inputs: Inputs, outputs: OneOutput) -> Metrics:
    """A stage that writes a folder."""
    outputs.model.mkdir()
    (outputs.model / "weights").write_text(f"{params.temperature} {(inputs.data / 'rows').read_text()}")
    return {"accuracy": 0.5, "size_bytes": 3, "more": {"unknown": None, "word": "x"}}


def quantize(params: QuantizeParams, inputs: Inputs, outputs: Outputs, variant: str) -> Metrics:
    outputs.model.write_text(variant)
    outputs.table.write_text("a,b\n")
    return {}


def files() -> set[str]:
    """Every file that the pipeline sees."""
    return {p.as_posix() for p in Path().rglob("*") if p.is_file() and p.parts[0] not in (".pocketbert", "params.yaml")}


BEFORE = {"data/in/rows"}


def test_a_stage_writes_outputs_metrics_and_provenance() -> None:
    metrics = execute(distill, [])
    assert files() == BEFORE | {"models/out/weights", "metrics/distill.json", "provenance/distill.json"}
    assert Path("models/out/weights").read_text() == "4.0 1"
    assert json.loads(Path("metrics/distill.json").read_text()) == metrics


def test_provenance_names_what_the_outputs_were_made_of() -> None:
    started = time.time()
    execute(distill, [])
    document = json.loads(Path("provenance/distill.json").read_text())
    assert document["stage"] == "distill"
    assert document["seed"] == 7
    assert document["params"]["temperature"] == 4.0
    assert (STATE_FOLDER / "spool" / f"{document['execution_id']}.jsonl").is_file()
    assert document["git_commit"] is None
    assert document["packages"]["torch"]
    assert 0 <= document["duration_s"] <= time.time() - started + 1
    first = document["input_hash"]
    Path("data/in/rows").write_text("2")
    execute(distill, [])
    assert json.loads(Path("provenance/distill.json").read_text())["input_hash"] != first


def test_an_instance_fills_in_its_paths() -> None:
    execute(quantize, ["onnx-fp16"])
    assert files() == BEFORE | {
        "models/out", "results/onnx-fp16.csv", "metrics/quantize/onnx-fp16.json", "provenance/quantize/onnx-fp16.json"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", ".."])
def test_an_instance_cannot_leave_its_folder(name: str) -> None:
    with pytest.raises(ParamsError, match="cannot be the name of a variant"):
        execute(quantize, [name])
    assert files() == BEFORE


def test_a_failed_stage_keeps_what_was_there_and_leaves_nothing_half_made() -> None:
    def failing(params: DistillParams, inputs: Inputs, outputs: TwoOutputs) -> Metrics:
        outputs.one.write_text("new")
        outputs.two.mkdir()
        (outputs.two / "half").write_text("x")
        raise TrainingError("the loss is NaN", "Lower the rate.")

    failing.__name__ = "distill"
    Path("results").mkdir()
    Path("results/one").write_text("old")
    before = {path: Path(path).read_bytes() for path in files()}
    with pytest.raises(TrainingError):
        execute(failing, [])
    assert {path: Path(path).read_bytes() for path in files()} == before


def test_an_output_that_is_not_written_replaces_nothing() -> None:
    def forgetful(params: DistillParams, inputs: Inputs, outputs: TwoOutputs) -> Metrics:
        outputs.one.write_text("new")
        return {}

    forgetful.__name__ = "distill"
    Path("results").mkdir()
    Path("results/one").write_text("old")
    with pytest.raises(StorageError, match="did not write results/two"):
        execute(forgetful, [])
    assert Path("results/one").read_text() == "old"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_no_number_replaces_nothing(value: float) -> None:
    def diverged(params: DistillParams, inputs: Inputs, outputs: OneOutput) -> Metrics:
        outputs.model.write_text("new")
        return {"valid": {"loss": value}}

    diverged.__name__ = "distill"
    with pytest.raises(PocketBertError, match=r"valid\.loss"):
        execute(diverged, [])
    assert files() == BEFORE


def test_a_missing_input_names_the_way_out() -> None:
    Path("data/in/rows").unlink()
    Path("data/in").rmdir()
    with pytest.raises(ParamsError, match=r"data/in does not exist.*dvc repro"):
        execute(distill, [])
    assert files() == set()


def test_the_checkpoint_folder_outlives_a_failure_and_goes_with_success() -> None:
    seen: list[Path] = []

    def training(params: DistillParams, inputs: Inputs, outputs: OneOutput) -> Metrics:
        stage = current_stage()
        assert stage is not None
        stage.log_metrics({"loss": 1.0}, 1)
        seen.append(stage.checkpoint_folder)
        stage.checkpoint_folder.mkdir(parents=True, exist_ok=True)
        (stage.checkpoint_folder / f"step-{len(seen)}").touch()
        if len(seen) == 1:
            raise TrainingError("killed", "Again.")
        outputs.model.write_text(str(sorted(p.name for p in stage.checkpoint_folder.iterdir())))
        return {}

    training.__name__ = "distill"
    with pytest.raises(TrainingError):
        execute(training, [])
    execute(training, [])
    assert seen[0] == seen[1]
    assert Path("models/out").read_text() == "['step-1', 'step-2']"
    assert not (STATE_FOLDER / "checkpoints/distill").exists()
    assert current_stage() is None


def test_other_inputs_do_not_resume_from_these() -> None:
    seen: list[Path] = []

    def training(params: DistillParams, inputs: Inputs, outputs: OneOutput) -> Metrics:
        stage = current_stage()
        assert stage is not None
        seen.append(stage.checkpoint_folder)
        raise TrainingError("x", "y")

    training.__name__ = "distill"
    for params, rows in (("{}", "1"), ("distill: {temperature: 3}", "1"), ("{}", "2")):
        Path("params.yaml").write_text(params)
        Path("data/in/rows").write_text(rows)
        with pytest.raises(TrainingError):
            execute(training, [])
    assert len(set(seen)) == 3


def test_a_stage_may_ask_for_all_params() -> None:
    seen: list[Params] = []

    def evaluate(params: Params, inputs: Inputs, outputs: OneOutput) -> Metrics:
        seen.append(params)
        outputs.model.touch()
        return {}

    execute(evaluate, [])
    assert seen[0].distill.temperature == 4.0


@pytest.mark.parametrize("kind", [ParamsError, DataError, TrainingError, BudgetError, StorageError])
def test_each_error_has_its_exit_code_and_one_line(
    kind: type[PocketBertError], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(params: DistillParams, inputs: Inputs, outputs: OneOutput) -> Metrics:
        raise kind("something is wrong", "Do something.")

    failing.__name__ = "distill"
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.setattr(sys, "argv", ["stages.distill"])
    with pytest.raises(SystemExit) as left:
        run_stage(failing)
    assert left.value.code == kind.exit_code > 1
    assert "something is wrong. Do something." in caplog.messages


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_a_disk_that_refuses_is_one_clear_line(number: int) -> None:
    def writing(params: DistillParams, inputs: Inputs, outputs: OneOutput) -> Metrics:
        outputs.model.write_text("half")
        raise OSError(number, os.strerror(number), "models/out")

    writing.__name__ = "distill"
    with pytest.raises(StorageError, match=f"models/out: {os.strerror(number)}"):
        execute(writing, [])
    assert files() == BEFORE


@pytest.fixture
def full_disk(project: Path) -> Iterator[Path]:
    """models/ on a disk of 64 kB."""
    if os.geteuid() != 0 and "CI" not in os.environ:
        pytest.skip("a full disk is a small tmpfs, which root alone can mount")
    folder = project / "models"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    yield folder
    # What failed to write may still hold its file open.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def write_bytes(folder: Path) -> None:
    (folder / "model.bin").write_bytes(b"x" * 10**6)


def write_safetensors(folder: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"weights": np.zeros(10**6, np.float32)}, folder / "model.safetensors")


def write_torch(folder: Path) -> None:
    import torch

    torch.save({"weights": torch.zeros(10**6)}, folder / "optimizer.pt")


def write_parquet(folder: Path) -> None:
    import pandas as pd

    pd.DataFrame({"text": [f"{i:x}" * 5 for i in range(10**5)]}).to_parquet(folder / "train.parquet")


@pytest.mark.parametrize("write", [write_bytes, write_safetensors, write_torch, write_parquet])
def test_a_full_disk_is_one_clear_line_and_keeps_the_former_output(
    full_disk: Path, write: Callable[[Path], None]
) -> None:
    def saving(params: DistillParams, inputs: Inputs, outputs: OneOutput) -> Metrics:
        outputs.model.mkdir()
        write(outputs.model)
        return {}

    saving.__name__ = "distill"
    execute(distill, [])
    before = files()
    with pytest.raises(StorageError) as raised:
        execute(saving, [])
    assert "space" in raised.value.fix
    assert "\n" not in str(raised.value)
    assert files() == before


def test_a_killed_stage_leaves_the_former_output_and_the_next_clears_up(project: Path) -> None:
    script = """
import os, signal
from dataclasses import dataclass
from pathlib import Path
from pocketbert.params import DistillParams
from pocketbert.stage import Metrics, execute
from tests.test_stage import Inputs, OneOutput

def distill(params: DistillParams, inputs: Inputs, outputs: OneOutput) -> Metrics:
    outputs.model.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

execute(distill, [])
"""
    Path("models").mkdir()
    Path("models/out").write_text("old")
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == -signal.SIGKILL
    assert Path("models/out").read_text() == "old"
    assert [p.name for p in Path("models").iterdir() if p.name != "out"] != []
    execute(distill, [])
    assert [p.name for p in Path("models").iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ("distill: {temprature: 4}", "did you mean 'temperature'?"),
        ("distill: {temperature: warm}", "distill.temperature = 'warm'"),
        ("distill: {temperature: 1000}", "less than or equal to 100"),
        ("distill: [", "not valid YAML"),
        # Their own stages would tell only after the training.
        ("quantize: {recipes: {a: {format: onnx, recipe: fp15}}}", "Did you mean 'fp16'?"),
        ("quantize: {recipes: {a: {format: tflite, recipe: fp16, options: {embedings: no}}}}", "embeddings"),
    ],
)
def test_a_mistake_in_params_is_one_line_of_a_real_stage(project: Path, params: str, said: str) -> None:
    Path("params.yaml").write_text(params)
    done = subprocess.run(
        [sys.executable, "-m", "stages.prepare"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == ParamsError.exit_code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert files() == BEFORE


def test_a_mistake_in_devices_stops_the_first_stage(project: Path) -> None:
    Path("devices.yaml").write_text("devices: {local: {kind: locl}}\n")
    with pytest.raises(ParamsError, match=r"devices\.local = .* 'locl' .* expected tags: 'local', 'ssh', 'adb'"):
        execute(prepare_nothing, [])


def test_an_objective_on_an_unknown_device_stops_the_first_stage(project: Path) -> None:
    Path("devices.yaml").write_text("devices: {board: {kind: local}}\n")
    with pytest.raises(ParamsError, match=r"quantize\.objective\.device: devices\.yaml has no device 'local'"):
        execute(prepare_nothing, [])


def prepare_nothing(params: DistillParams, inputs: Inputs, outputs: OneOutput) -> Metrics:
    raise AssertionError("not reached")


def test_the_runner_is_light() -> None:
    heavy = {"torch", "tensorflow", "transformers", "mlflow", "pandas", "sklearn", "matplotlib", "dvc"}
    script = f"import sys, pocketbert.stage; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout == "set()\n", done.stderr

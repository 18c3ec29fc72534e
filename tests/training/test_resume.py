"""A training killed with SIGKILL goes on where it stopped, and comes to the same result."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import Taught
from tests.training.killed import STEPS

ROOT = Path(__file__).parent.parent.parent


def start(taught: Taught, state: Path, output: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.training.killed", *map(str, (taught.teacher, taught.soft, state, output))]
    return subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def finish(process: "subprocess.Popen[str]") -> str:
    stderr = process.communicate(timeout=120)[1]
    assert process.returncode == 0, stderr
    return stderr


def whole_steps(state: Path) -> list[int]:
    return [int(path.parent.name.removeprefix("checkpoint-")) for path in state.glob("checkpoint-*/complete")]


def kill_once_past(process: "subprocess.Popen[str]", state: Path, step: int) -> None:
    """SIGKILL as soon as a whole checkpoint of that step or a later one is there."""
    deadline = time.monotonic() + 120
    while not any(found >= step for found in whole_steps(state)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def undisturbed(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    finish(start(taught, root / "state", root / "output"))
    return root


def test_killed_twice_and_still_the_same(taught: Taught, undisturbed: Path, tmp_path: Path) -> None:
    state, output = tmp_path / "state", tmp_path / "output"
    for step in (8, 35):
        kill_once_past(start(taught, state, output), state, step)
        assert not (output / "student" / "artifact.json").exists()
    # What a kill in the middle of a save leaves behind.
    torn = state / f"checkpoint-{STEPS - 1}"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"torn")
    resumed_from = max(whole_steps(state))
    assert 35 <= resumed_from < STEPS

    assert f"going on from {state}/checkpoint-{resumed_from}" in finish(start(taught, state, output))
    assert not torn.exists()
    ours, theirs = (load_file(folder / "student" / "model.safetensors") for folder in (output, undisturbed / "output"))
    assert ours.keys() == theirs.keys()
    worst = max((ours[name] - theirs[name]).abs().max().item() for name in ours)
    assert worst < 1e-5
    curves = [
        list(csv.DictReader((folder / "plots" / "curve.csv").open())) for folder in (output, undisturbed / "output")
    ]
    for a, b in zip(*curves, strict=True):
        assert a["epoch"] == b["epoch"]
        assert float(a["valid_accuracy"]) == pytest.approx(float(b["valid_accuracy"]))
        # The log is rounded to four digits, at other steps after a kill.
        assert float(a["train_loss"]) == pytest.approx(float(b["train_loss"]), abs=1e-3)


def test_killed_after_the_last_step_only_writes_the_result(taught: Taught, undisturbed: Path, tmp_path: Path) -> None:
    assert whole_steps(undisturbed / "state") == [STEPS]
    stderr = finish(start(taught, undisturbed / "state", tmp_path))
    assert "epoch 1" not in stderr
    folders = (undisturbed / "output", tmp_path)
    weights = [load_file(folder / "student" / "model.safetensors") for folder in folders]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    curves = [(folder / "plots" / "curve.csv").read_text(encoding="utf-8") for folder in folders]
    assert curves[0] == curves[1]

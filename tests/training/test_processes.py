"""Two processes train as one does: the same batches, the same curve, the same weights."""

import csv
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from pocketbert.data.dataset import write_labels, write_split
from pocketbert.errors import ParamsError, TrainingError
from pocketbert.params import SoftenParams, TeachParams
from pocketbert.training.loop.group import Group
from pocketbert.training.loop.processes import joined
from pocketbert.training.soften import soften_texts
from pocketbert.training.teach import teach_classifier
from tests.training import joint
from tests.training.conftest import FAST, Taught
from tests.training.toy import LABELS, save_checkpoint, toy_split

ROOT = Path(__file__).parent.parent.parent


@given(values=st.lists(st.floats(-100, 100), min_size=1, max_size=40), size=st.integers(1, 7))
def test_shares_are_the_batch_and_their_mean_is_its_mean(values: list[float], size: int) -> None:
    groups = [Group(rank, size) for rank in range(size)]
    shares = [group.share(list(range(len(values)))) for group in groups]
    assert sorted(i for own, weight in shares for i in own if weight > 0) == list(range(len(values)))
    mean = sum(weight * np.mean([values[i] for i in own]) for own, weight in shares) / size
    assert mean == pytest.approx(np.mean(values), abs=1e-9)


def test_alone_nothing_is_exchanged(tmp_path: Path) -> None:
    alone = Group()
    values = torch.arange(3.0)
    assert alone.mean(values) is values and alone.gather(values, 3) is values
    assert alone.follow(True) and not alone.follow(False)
    assert alone.copy_folder(tmp_path, tmp_path) == tmp_path


def test_params_and_environment_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ParamsError, match=r"WORLD_SIZE is 3, but params.yaml asks for processes: 2"), joined(2):
        pass
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(ParamsError, match="2 processes need a stage"), joined(2):
        pass


@pytest.fixture(scope="module")
def soft(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("soft") / "soft"
    soften_texts(SoftenParams(), taught.teacher, toy_split(joint.ROWS, seed=1).texts, folder)
    return folder


def start_pair(mode: str, taught: Taught, soft: Path, folder: Path) -> "list[subprocess.Popen[str]]":
    """Two processes, as torchrun would start them on two machines: each has folders of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
              "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.joint", mode, taught.teacher, soft,
             folder / f"state{rank}/inputs", folder / f"output{rank}"],
            cwd=ROOT, env=os.environ | common | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip


def curve(folder: Path, name: str) -> list[dict[str, float]]:
    with (folder / "plots" / name).open(encoding="utf-8") as stream:
        return [{key: float(value or "nan") for key, value in row.items()} for row in csv.DictReader(stream)]


def worst_difference(a: Path, b: Path) -> float:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (a, b))
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def test_killed_on_two_machines_and_still_what_one_process_gives(taught: Taught, soft: Path, tmp_path: Path) -> None:
    joint.train("whole", taught.teacher, soft, tmp_path / "state", tmp_path / "alone")
    first = start_pair("interrupted", taught, soft, tmp_path)
    said = [process.communicate(timeout=400)[1] for process in first]
    assert first[0].returncode == -signal.SIGKILL
    # The other one does not wait for ever.
    assert first[1].returncode == TrainingError.exit_code, said[1]
    assert "lost each other" in said[1]
    assert [path.parent.name for path in tmp_path.glob("state*/inputs/*/complete")] == ["checkpoint-35"]

    second = start_pair("whole", taught, soft, tmp_path)
    said = [process.communicate(timeout=400)[1] for process in second]
    assert [process.returncode for process in second] == [0, 0], said
    assert "going on from" in said[0]
    alone, together = tmp_path / "alone", tmp_path / "output0"
    assert not (tmp_path / "output1/plots").exists()
    assert not (tmp_path / "output1/student/artifact.json").exists()
    assert worst_difference(alone / "student", together / "student") < 1e-4
    for a, b in zip(curve(alone, "curve.csv"), curve(together, "curve.csv"), strict=True):
        assert b["valid_loss"] == pytest.approx(a["valid_loss"], abs=1e-4)
        assert b["valid_accuracy"] == a["valid_accuracy"]
        # Logged with four digits.
        assert b["train_loss"] == pytest.approx(a["train_loss"], abs=2e-4, nan_ok=True)
    assert curve(alone, "curve.csv")[-1]["valid_accuracy"] > 0.5


def test_a_loss_that_is_no_number_in_one_process_ends_both(taught: Taught, soft: Path, tmp_path: Path) -> None:
    pair = start_pair("poisoned", taught, soft, tmp_path)
    said = [process.communicate(timeout=400)[1] for process in pair]
    assert [process.returncode for process in pair] == [TrainingError.exit_code] * 2, said
    assert all("training diverged at step 3" in text for text in said)


def test_a_stage_starts_its_processes_itself(taught: Taught, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "c", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    train, valid = toy_split(joint.ROWS, seed=1), toy_split(81, seed=2)
    params = {"checkpoint": "c", "epochs": 2, "head": {"dropout": 0.0}, "processes": 2, **FAST}
    for folder, split, name in (("augmented", train, "train"), ("prepared", valid, "valid")):
        (tmp_path / "data" / folder).mkdir(parents=True)
        write_split(split, tmp_path / f"data/{folder}/{name}.parquet")
    write_labels(LABELS, tmp_path / "data/prepared")
    (tmp_path / "params.yaml").write_text(f"teach: {params}\n".replace("'", '"'), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "stages.teach"], cwd=tmp_path, capture_output=True, text=True, timeout=400,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # The lines of one process, and no warnings of libraries.
    assert [line.split()[:3] for line in done.stderr.splitlines() if "epoch" in line] == [
        ["INFO", "epoch", "1"], ["INFO", "epoch", "2"]
    ]  # fmt: skip
    assert "warning" not in done.stderr.lower().replace("warning mlflow at", "").replace("warning a record", "")
    alone = tmp_path / "alone"
    teach_classifier(
        TeachParams.model_validate(params | {"checkpoint": str(checkpoint), "processes": 1}),
        LABELS, train, valid, alone / "teacher", alone / "plots",
    )  # fmt: skip
    assert worst_difference(alone / "teacher", tmp_path / "models/teacher") < 1e-4
    (tmp_path / "plots/plots").symlink_to(tmp_path / "plots/teach")
    for a, b in zip(curve(alone, "loss.csv"), curve(tmp_path / "plots", "loss.csv"), strict=True):
        assert b == pytest.approx(a, abs=2e-4)
    # One execution is recorded, no checkpoint and no process is left.
    assert len(list((tmp_path / ".pocketbert/spool").glob("*.jsonl"))) == 1
    assert not (tmp_path / ".pocketbert/checkpoints/teach").exists()
    left = [p.cmdline() for p in psutil.process_iter(["cmdline"]) if "stages.teach" in (p.info["cmdline"] or [])]
    assert [command for command in left if str(tmp_path) in " ".join(command)] == []

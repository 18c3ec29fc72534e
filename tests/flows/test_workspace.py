import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.states import Failed

from flows.outcome import is_transient, outcome, sentence
from flows.watch_data import raw_data_change
from flows.workspace import apply_overrides, run_dvc, stage_order
from pocketbert.errors import ParamsError
from pocketbert.params import load_params
from tests.conftest import ROOT
from tests.flows.conftest import environment, wait_for


def test_stages_come_in_the_order_of_dvc_s_graph(miniature: Path) -> None:
    assert stage_order() == ["prepare", "finish"]


def test_a_pipeline_that_cannot_be_read_names_the_file(miniature: Path) -> None:
    (miniature / "dvc.yaml").write_text("stages: [1", encoding="utf-8")
    with pytest.raises(ParamsError, match=r"cannot read the pipeline: .*'dvc.yaml'"):
        stage_order()


def test_overrides_are_written_as_dvc_writes_them(miniature: Path) -> None:
    params = miniature / "params.yaml"
    before = params.read_text(encoding="utf-8")
    apply_overrides(["report.worst_classes=4", "distill.student.layers=2", "quantize.recipes.onnx-fp16.recipe=fp16"])
    assert load_params().report.worst_classes == 4
    kept = [line for line in before.splitlines() if line.startswith("#")]
    assert [line for line in params.read_text(encoding="utf-8").splitlines() if line.startswith("#")] == kept
    ours = params.read_bytes()
    params.write_text(before, encoding="utf-8")
    for command in (["git", "init", "-q"], ["git", "add", "params.yaml", "dvc.yaml", ".dvc"],
                    ["git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qm", "x"],
                    ["dvc", "config", "core.no_scm", "false"],
                    ["dvc", "exp", "run", "-q", "--downstream", "prepare", "-S", "report.worst_classes=4",
                     "-S", "distill.student.layers=2", "-S", "quantize.recipes.onnx-fp16.recipe=fp16"]):  # fmt: skip
        subprocess.run(command, cwd=miniature, env=environment(), check=True)
    assert params.read_bytes() == ours


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("distill.temperatur=4", "temperatur"),
        ("distill.temperature=warm", "distill.temperature = 'warm'"),
        ("distill.temperature=-1", "distill.temperature = -1"),
        ("distill.temperature=1,2", "several values"),
        ("distill.temperature", "cannot be applied"),
        ("+distill.warmth=4", "unknown key 'distill.warmth'"),
    ],
)
def test_a_wrong_override_is_explained_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, words: str
) -> None:
    shutil.copy2(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "params.yaml").read_bytes()
    with pytest.raises(ParamsError, match=re.escape(words)):
        apply_overrides(["report.worst_classes=4", override])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"params.yaml": before}


def repro(worst_classes: int) -> tuple[list[str], State[object]]:
    """Run `finish` with a behaviour: (lines as they were shown, state)."""
    apply_overrides([f"report.worst_classes={worst_classes}"])
    shown: list[str] = []
    returncode, lines = run_dvc(["repro", "--single-item", "finish"], shown.append)
    assert shown == lines
    return lines, outcome("finish", returncode, lines)


def test_states_of_a_stage(miniature: Path) -> None:
    _, missing = repro(12)
    assert missing.type is StateType.FAILED
    assert "prepared.txt" in str(missing.message).splitlines()[0]
    assert outcome("prepare", *run_dvc(["repro", "prepare"], print)).name == "Completed"
    lines, rebuilt = repro(12)
    assert "worst_classes is 12" in lines
    assert (rebuilt.name, rebuilt.message) == ("Completed", "finish was rebuilt")
    assert (repro(12)[1].name, repro(12)[1].type) == ("Cached", StateType.COMPLETED)
    assert repro(13)[1].name == "Completed"
    # DVC's own cache of earlier runs.
    assert repro(12)[1].message == "finish was built before with these inputs"
    failed = repro(66)[1]
    assert failed.type is StateType.FAILED
    assert str(failed.message).splitlines()[0] == "finish: ValueError: the glue of row 7 is wet"
    crashed = repro(77)[1]
    assert crashed.type is StateType.CRASHED


def test_dvc_and_all_below_it_die_with_a_killed_flow(miniature: Path) -> None:
    run_dvc(["repro", "prepare"], print)
    apply_overrides(["report.worst_classes=88"])
    code = 'from flows.workspace import run_dvc; run_dvc(["repro", "finish"], print)'
    flow = subprocess.Popen([sys.executable, "-c", code], cwd=miniature, env=environment())
    pids = miniature / "pids.json"
    wait_for(pids.exists, 30, "the stage's start")
    family = [psutil.Process(pid) for pid in json.loads(pids.read_text())]
    flow.send_signal(signal.SIGKILL)
    flow.wait()
    assert psutil.wait_procs(family, timeout=5)[1] == []


def test_the_error_s_own_sentence() -> None:
    own = ["ERROR params.yaml is not valid: x. Correct it.", "INFO bye"]
    dvc = "ERROR: failed to reproduce 'teach': failed to run: python -m stages.teach, exited with 2"
    assert sentence(["Running stage 'teach':", "> python -m stages.teach", *own, dvc]) == own[0].removeprefix("ERROR ")
    assert sentence(["ERROR: failed to reproduce 'teach': missing data 'source': a.csv"]).endswith("a.csv")
    assert sentence([]) == "no output"


@pytest.mark.parametrize(("status", "again"), [(9, True), (11, True), (1, False), (3, False), (-9, False)])
def test_only_devices_and_the_network_are_tried_again(status: int, again: bool) -> None:
    line = f"ERROR: failed to reproduce 'a': failed to run: python -m stages.a, exited with {status}"
    state = outcome("a", 255, [line])
    assert is_transient(state) is again
    assert not is_transient(Failed(message="exited with 9"))
    assert is_transient(outcome("a", 255, ["ERROR: Unable to acquire lock. Most likely another DVC"]))


def test_a_change_of_the_raw_data_is_read_from_dvc_s_status() -> None:
    changed = {"prepare": [{"changed deps": {"a.csv": "modified", "b.py": "new"}}, "changed command"]}
    assert raw_data_change(changed, "a.csv") == "modified"
    assert raw_data_change(changed, "c.csv") is None
    assert raw_data_change({}, "a.csv") is None

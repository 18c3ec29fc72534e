"""`pocketbert devices list` and `probe`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pocketbert.cli import app
from pocketbert.devices.links.base import LinkLost
from pocketbert.devices.links.fake import FakeLink, Fault
from pocketbert.devices.probe import probe_device
from pocketbert.devices.retry import AGAIN
from pocketbert.errors import StorageError
from pocketbert.results_table import print_results

BOARD = """
devices:
  local: {kind: local, tags: [fast, "x86"]}
  board:
    kind: ssh
    address: 127.0.0.1
    port: 9
    user: me
    key: key
    host_key: "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
    work: /home/me/work
    gpu: {name: Mali-G610, driver: opencl}
"""


@pytest.fixture
def inventory(project: Path) -> Path:
    (project / "devices.yaml").write_text(BOARD, encoding="utf-8")
    return project


def test_the_inventory_as_a_table_and_as_json(inventory: Path) -> None:
    shown = CliRunner().invoke(app, ["devices", "list"])
    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == [
        "name   kind   where           gpu        tags",
        "local  local  -               -          fast, x86",
        "board  ssh    me@127.0.0.1:9  Mali-G610  -",
    ]
    rows = json.loads(CliRunner().invoke(app, ["devices", "list", "--json"]).stdout)
    assert rows[0] == {"name": "local", "kind": "local", "where": None, "gpu": None, "tags": "fast, x86"}


def test_this_machine_answers(inventory: Path) -> None:
    shown = CliRunner().invoke(app, ["devices", "probe", "local", "--json"])
    assert shown.exit_code == 0
    found = json.loads(shown.stdout)
    assert found["reachable"] is True
    assert found["cores"] >= 1
    assert found["free_bytes"] > 0
    assert abs(found["clock_skew_s"]) <= found["clock_skew_error_s"] + 0.5
    assert found["runtimes"]["onnxruntime"]
    assert found["telemetry"]["memory"] == "proc/PID/status"
    assert found["in_use_by"] is None


def test_a_device_that_does_not_answer_is_an_answer(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    down = FakeLink(faults=[Fault("connect", 1, LinkLost("nobody listens at port 9", "Switch it on."), times=9)])
    monkeypatch.setattr("pocketbert.devices.probe.open_link", lambda *_: down)
    shown = CliRunner().invoke(app, ["devices", "probe", "board", "--json"])
    assert shown.exit_code == 9
    found = json.loads(shown.stdout)
    assert (found["reachable"], found["error"]) == (False, "nobody listens at port 9. Switch it on.")
    assert found["processor"] is None
    shown = CliRunner().invoke(app, ["devices", "probe", "board"])
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["name", "kind", "reachable", "error"]


def test_a_device_without_python_is_named(inventory: Path) -> None:
    found = probe_device("board", FakeLink())
    assert found.reachable
    assert "the agent cannot run on board with python3: not found" in str(found.error)


def test_a_device_that_was_down_is_measured_again(inventory: Path) -> None:
    folder = inventory / "results/benchmark"
    for name, error in (("local", None), ("board", f"it was down. {AGAIN}")):
        (folder / name).mkdir(parents=True)
        (folder / name / "benchmark.json").write_text(json.dumps({"device": {"error": error}}), encoding="utf-8")
    shown = CliRunner().invoke(app, ["devices", "retry"])
    assert shown.exit_code == 0
    assert shown.stdout == "board: the next `dvc repro` measures there again. It had failed: it was down.\n"
    assert [place.name for place in folder.iterdir()] == ["local"]
    assert CliRunner().invoke(app, ["devices", "retry"]).stdout.startswith("No device is waiting")
    (folder / "local/benchmark.json").write_text("{", encoding="utf-8")
    assert isinstance(CliRunner().invoke(app, ["devices", "retry"]).exception, StorageError)


def test_the_results_name_the_devices_that_gave_none(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, error in (("local", None), ("board", f"it was down. {AGAIN}")):
        (project / "results/benchmark" / name).mkdir(parents=True)
        text = json.dumps({"device": {"error": error}})
        (project / "results/benchmark" / name / "benchmark.json").write_text(text, encoding="utf-8")
    (project / "report").mkdir()
    (project / "report/results.csv").write_text("artifact,device\nteacher,local\n", encoding="utf-8")
    (project / "params.yaml").write_text("{}", encoding="utf-8")
    print_results(project / "report")
    said = capsys.readouterr().out
    assert f"missing the rows of board. it was down. {AGAIN}" in said
    assert "rows of local" not in said

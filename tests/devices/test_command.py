"""`pocketbert devices list` and `probe`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pocketbert.cli import app
from pocketbert.devices.links.base import LinkLost
from pocketbert.devices.links.fake import FakeLink, Fault
from pocketbert.devices.probe import probe_device

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


def test_a_device_without_python_is_named(inventory: Path) -> None:
    found = probe_device("board", FakeLink())
    assert found.reachable
    assert "the agent cannot run on board with python3: not found" in str(found.error)

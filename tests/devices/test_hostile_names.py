"""A device or a recipe whose name is an attack, met by DVC before any code of ours runs."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.exceptions import DvcException
from dvc.repo import Repo
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pocketbert.cli import app
from pocketbert.devices.inventory import read_inventory
from pocketbert.errors import ParamsError
from tests.conftest import copy_project

COMMANDS = ["x'; touch pwned; '", "$(touch pwned)", '"; touch pwned; "']
OTHERS = ["`touch pwned`", "a\nb", "-rf", "a b", "*", "", ".", "benchmark@local", "a.b", "a" * 65]
# They lead out of results/benchmark: DVC deletes outputs before it runs what makes them.
PATHS = ["x/../../../docs", "../../../precious", "../mine"]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stages find something at all paths that they read."""
    root = tmp_path_factory.mktemp("hostile") / "project"
    root.mkdir()
    copy_project(root)
    with pytest.MonkeyPatch.context() as patch, Repo(str(root)) as repo:
        patch.chdir(root)
        for path in (Path(out.fs_path) for stage in repo.index.stages for out in stage.outs):
            target = path if path.suffix else path / "content"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
    for precious in (root / "results/mine", root.parent / "precious"):
        precious.mkdir()
        (precious / "file").touch()
    return root


@pytest.fixture
def project(copy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The copy as the current directory, where nothing may be gone afterwards and no command have run."""
    monkeypatch.chdir(copy)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    before = {file: file.read_bytes() for file in (copy / "devices.yaml", copy / "params.yaml")}
    yield copy
    for file, content in before.items():
        file.write_bytes(content)
    assert not list(copy.rglob("pwned"))
    for kept in ("docs/devices.md", "results/mine/file", "../precious/file", "models/teacher/content"):
        assert (copy / kept).exists(), kept


def declare(project: Path, *names: str) -> None:
    devices = {name: {"kind": "local"} for name in ("local", *names)}
    (project / "devices.yaml").write_text(json.dumps({"devices": devices}), encoding="utf-8")


@pytest.mark.parametrize("name", COMMANDS + OTHERS + PATHS)
def test_the_inventory_refuses_it(project: Path, name: str) -> None:
    declare(project, name)
    with pytest.raises(ParamsError, match="should match pattern") as caught:
        read_inventory()
    assert "\n" not in str(caught.value)
    for command in (["list"], ["probe", "--", name or "local"]):
        shown = CliRunner().invoke(app, ["devices", *command])
        assert isinstance(shown.exception, ParamsError | SystemExit)
        assert shown.exit_code != 0


def test_a_name_that_is_a_command_is_not_run(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    declare(project, *COMMANDS)
    for name in COMMANDS[:2]:
        with Repo() as repo, pytest.raises(DvcException):
            repo.reproduce(targets=[f"benchmark@{name}"], single_item=True)
        assert "cannot be the name of a device" in capfd.readouterr().err


def test_a_recipe_s_name_that_is_a_command_is_not_run(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    params = YAML().load(project / "params.yaml")
    params["quantize"]["recipes"] = {"x; touch pwned": {"format": "onnx", "recipe": "fp16"}}
    YAML().dump(params, project / "params.yaml")
    with Repo() as repo, pytest.raises(DvcException):
        repo.reproduce(targets=["quantize@x; touch pwned"], single_item=True)
    assert "cannot be the name of a variant" in capfd.readouterr().err


@pytest.mark.parametrize("name", PATHS)
def test_a_name_that_is_a_path_deletes_nothing(project: Path, name: str) -> None:
    declare(project, name)
    with Repo() as repo, pytest.raises(DvcException):
        repo.reproduce(targets=[f"benchmark@{name}"], single_item=True)


def test_a_recipe_s_name_that_leads_out_of_the_project_s_folders_deletes_nothing(project: Path) -> None:
    params = YAML().load(project / "params.yaml")
    params["quantize"]["recipes"] = {"../../docs": {"format": "onnx", "recipe": "fp16"}}
    YAML().dump(params, project / "params.yaml")
    with Repo() as repo, pytest.raises(DvcException, match="already specified"):
        repo.reproduce(targets=["quantize"])

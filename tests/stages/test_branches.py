"""What `dvc repro` would run after a change: asked of DVC itself, over outputs that stand in for the real ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from pocketbert.profiles import deep_merge
from tests.conftest import copy_project

BEHIND = {"delegate", "evaluate", "benchmark@local", "publish"}


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], set[str]]:
    """The stages that a change of params.yaml makes stale at once (those behind them follow from their outputs)."""
    root = tmp_path_factory.mktemp("branches")
    copy_project(root)
    with pytest.MonkeyPatch.context() as patch, Repo(str(root)) as repo:
        # DVC resolves the paths of dvc.yaml's stages from here.
        patch.chdir(root)
        for stage in repo.index.stages:
            for out in stage.outs:
                path = Path(out.fs_path)
                target = path if path.suffix else path / "content"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(out.def_path, encoding="utf-8")
        repo.commit(force=True)
        assert repo.status() == {}
    params = root / "params.yaml"
    before = params.read_text(encoding="utf-8")

    def ask(change: dict[str, Any]) -> set[str]:
        document = YAML().load(before)
        deep_merge(document, change)
        YAML().dump(document, params)
        with pytest.MonkeyPatch.context() as patch, Repo(str(root)) as repo:
            patch.chdir(root)
            stale = set(repo.status())
        params.write_text(before, encoding="utf-8")
        return stale

    return ask


def test_one_recipe_is_one_branch(changed: Callable[[dict[str, Any]], set[str]]) -> None:
    recipe = {"options": {"exclude": "auto"}, "sensitivity": {"rows": 64}}
    stale = changed({"quantize": {"recipes": {"tflite-static_wi8_ai8": recipe}}})
    assert stale == BEHIND | {"quantize@tflite-static_wi8_ai8"}


def test_another_objective_measures_nothing_again(changed: Callable[[dict[str, Any]], set[str]]) -> None:
    assert changed({"quantize": {"objective": {"kind": "smallest"}}}) == {"report", "publish"}

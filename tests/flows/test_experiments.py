from pathlib import Path

import pytest

from flows.experiments import Experiment, read_experiments, summary
from pocketbert.errors import ParamsError


def written(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_mapping_is_a_grid(tmp_path: Path) -> None:
    found = read_experiments(written(tmp_path, "distill.temperature: [1.0, 2.0]\ndistill.alpha: [0.5, 0.9]\n"))
    assert found == [
        ("distill.temperature=1.0", "distill.alpha=0.5"),
        ("distill.temperature=1.0", "distill.alpha=0.9"),
        ("distill.temperature=2.0", "distill.alpha=0.5"),
        ("distill.temperature=2.0", "distill.alpha=0.9"),
    ]


def test_a_list_holds_an_experiment_an_entry_and_each_once(tmp_path: Path) -> None:
    text = "- {distill.student: {kind: cut, layers: [0, 5]}}\n- {prepare.hub: null, teach.keep_best: true}\n"
    found = read_experiments(written(tmp_path, text + text))
    assert found == [
        ("distill.student={kind: cut, layers: [0, 5]}",),
        ("prepare.hub=null", "teach.keep_best=true"),
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", "a: 1", "a: []", "- 1", "text"])
def test_what_is_neither_is_explained(tmp_path: Path, text: str) -> None:
    with pytest.raises(ParamsError, match="neither a grid nor a list"):
        read_experiments(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"none\.yaml does not exist"):
        read_experiments(tmp_path / "none.yaml")


def test_a_failed_experiment_stands_in_the_table_with_its_error() -> None:
    text = summary([Experiment("a-1", ("distill.alpha=0.5", "x={a|b}"), "ValueError: wet | glue")], "http://page")
    assert "| a-1 | `distill.alpha=0.5`<br>`x={a/b}` | failed | ValueError: wet / glue |" in text
    assert "http" not in text

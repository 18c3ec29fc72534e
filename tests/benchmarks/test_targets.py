"""The table of targets, over a set of results as the stages write them."""

import contextlib
import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.targets import Verdict, judge, read_run, show
from pocketbert.errors import PocketBertError
from pocketbert.params import Objective, ReportParams
from pocketbert.report.build import build_report
from tests.report.conftest import write_sources

CHOSEN, SMALLEST = "tflite-dynamic_wi8_afp32", "smallest"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results and the report of a finished pipeline."""
    folder = tmp_path_factory.mktemp("finished")
    with contextlib.chdir(folder):
        build_report(ReportParams(), write_sources(folder), folder / "report", Objective())
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to edit."""
    return Path(shutil.copytree(finished, tmp_path / "project"))


def edit_row(project: Path, artifact: str, **cells: str) -> None:
    path = project / "report/results.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row.update(cells if row["artifact"] == artifact else {})
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def verdicts(project: Path) -> list[Verdict]:
    return list(judge(read_run(project)))


def missed(project: Path) -> list[str]:
    return [verdict.target.split(":")[0] for verdict in verdicts(project) if not verdict.met]


def test_the_table_says_what_is_met_and_on_which_artifact(project: Path) -> None:
    lines: list[str] = []
    assert not show(project, lines.append)
    # No file of the set is as small as that; all else is met.
    assert [line.rsplit("|", 2)[1].strip() for line in lines[1:]] == ["met"] * 4 + ["MISSED"]
    assert f"| {CHOSEN} |" in lines[3]
    edit_row(project, CHOSEN, size_bytes="7900000")
    assert show(project, lines.append)


@pytest.mark.parametrize(
    ("artifact", "cells", "target"),
    [
        ("tflite-fp32", {"logit_rel_diff": "0.0002"}, "fp32 ONNX and TFLite"),
        ("onnx-fp16", {"logit_rel_diff": "0.011"}, "fp16"),
        (CHOSEN, {"accuracy": "0.95"}, "chosen int8"),
        (CHOSEN, {"latency_p50_ms": "9"}, "chosen int8"),
        (CHOSEN, {"latency_p50_ms": ""}, "chosen int8"),
        ("tflite-fp32", {"threads": "2"}, "chosen int8"),
        (CHOSEN, {"accuracy_drop": "1.01"}, "smallest with <= 1.0 point lost against the teacher"),
    ],
)
def test_a_figure_beyond_its_limit_misses_its_target_alone(
    project: Path, artifact: str, cells: dict[str, str], target: str
) -> None:
    edit_row(project, CHOSEN, size_bytes="7900000")
    edit_row(project, artifact, **cells)
    assert missed(project) == [target]


def test_the_smallest_file_is_picked_by_validation_rows_alone(project: Path) -> None:
    edit_row(project, "tflite-static_wi8_ai8", size_bytes="5000000", accuracy_drop="0.5")
    assert verdicts(project)[-1].artifact == "onnx-dynamic_int8"
    edit_row(project, "tflite-static_wi8_ai8", valid_accuracy_drop="0.9")
    assert verdicts(project)[-1].artifact == "tflite-static_wi8_ai8"


def test_the_worst_logit_error_of_any_stage_counts(project: Path) -> None:
    path = project / "results/evaluate/evaluate.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document[2]["logit_rel_diff"] = 0.5
    path.write_text(json.dumps(document), encoding="utf-8")
    assert verdicts(project)[0] == Verdict(verdicts(project)[0].target, "onnx-fp32", "5.0e-01", False)


@pytest.mark.parametrize("choice", [None, "tflite-fp16"])
def test_without_a_chosen_int8_file_its_targets_are_missed(project: Path, choice: str | None) -> None:
    path = project / "report/choice.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chosen": choice}), encoding="utf-8")
    assert missed(project)[:2] == ["chosen int8", "chosen int8"]


def rename_report(project: Path) -> None:
    (project / "report").rename(project / "elsewhere")


def drop_table(project: Path) -> None:
    (project / "report/results.csv").unlink()


@pytest.mark.parametrize("change", [rename_report, drop_table])
def test_a_pipeline_that_has_not_ended_is_one_line(project: Path, change: Callable[[Path], None]) -> None:
    change(project)
    with pytest.raises(PocketBertError, match=r"cannot be read.*dvc repro"):
        read_run(project)

"""What is shipped, and what may not be."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketbert.errors import ParamsError
from pocketbert.params import Objective, ReportParams
from pocketbert.report.build import build_report
from pocketbert.report.choice import Choice, choose
from pocketbert.report.sources import Sources, read_benchmarks, read_evaluated, read_predictions
from pocketbert.report.table import ResultRow, join_rows
from tests.report.conftest import write_json, write_sources

DYNAMIC = "tflite-dynamic_wi8_afp32"
Change = dict[str, Any]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ResultRow], dict[str, list[int]]]:
    sources = write_sources(tmp_path_factory.mktemp("rows"), devices=("board", "local"))
    rows = join_rows(read_evaluated(sources.evaluated), read_benchmarks(sources.benchmarked))
    return rows, read_predictions(sources.evaluated, "valid_predictions.parquet")


def chosen(measured: tuple[list[ResultRow], Any], changes: dict[str, Change] | None = None, **objective: Any) -> Choice:
    """The choice where some artifacts' rows are changed."""
    rows, predictions = measured
    changed = [row.model_copy(update=(changes or {}).get(row.artifact, {})) for row in rows]
    return choose(Objective(**objective), changed, predictions)


def test_each_kind_of_objective_has_its_winner(measured: tuple[list[ResultRow], Any]) -> None:
    fastest = chosen(measured)
    assert fastest.chosen == DYNAMIC
    assert fastest.reason.startswith(f"{DYNAMIC} is the fastest of 6 converted artifacts on local that lose at most 1")
    assert chosen(measured, kind="smallest").chosen == "onnx-dynamic_int8"
    # Within the noise of 1,200 rows nothing is more accurate, so that the smallest is taken again.
    accurate = chosen(measured, kind="most_accurate")
    assert accurate.chosen == "onnx-dynamic_int8"
    assert "has the highest accuracy" in accurate.reason
    assert chosen(measured, format="onnx").chosen == "onnx-dynamic_int8"
    assert chosen(measured, kind="smallest", format="tflite", accuracy_drop_max=9.0).chosen == DYNAMIC


def test_the_test_rows_have_no_say(measured: tuple[list[ResultRow], Any]) -> None:
    worst_on_test = {DYNAMIC: {"accuracy": 0.1, "accuracy_drop": 86.0, "macro_f1": 0.1}}
    assert chosen(measured, worst_on_test).chosen == DYNAMIC
    worst_on_valid = {DYNAMIC: {"valid_accuracy": 0.95, "valid_accuracy_drop": 1.4}}
    choice = chosen(measured, worst_on_valid)
    assert choice.chosen == "onnx-dynamic_int8"
    (judged,) = [c for c in choice.candidates if c.artifact == DYNAMIC]
    assert judged.why_not == "it loses 1.40 points, 0.40 too many"


@pytest.mark.parametrize(
    "change",
    [
        {"error": "the worker was killed by SIGSEGV"},
        {"logit_rel_diff": None},
        {"latency_p50_ms": None},
    ],
)
def test_a_row_without_proof_or_latency_is_never_chosen(measured: tuple[list[ResultRow], Any], change: Change) -> None:
    for kind in ("fastest", "smallest", "most_accurate"):
        choice = chosen(measured, {DYNAMIC: change, "onnx-dynamic_int8": change}, kind=kind)
        assert choice.chosen not in (None, DYNAMIC, "onnx-dynamic_int8")


def test_a_latency_within_the_noise_does_not_beat_a_smaller_file(measured: tuple[list[ResultRow], Any]) -> None:
    close = {"latency_p50_ms": 5.0, "latency_p50_ci_low_ms": 4.8, "latency_p50_ci_high_ms": 5.4}
    choice = chosen(measured, {"tflite-fp16": close})
    assert choice.chosen == DYNAMIC
    assert "tflite-fp16 has the lowest median (5.00 ms), but the difference is within the noise" in choice.reason
    clear = {"latency_p50_ms": 4.0, "latency_p50_ci_low_ms": 3.9, "latency_p50_ci_high_ms": 4.1}
    assert chosen(measured, {"tflite-fp16": clear}).chosen == "tflite-fp16"


def test_a_significantly_better_artifact_is_taken_although_it_is_larger(measured: tuple[list[ResultRow], Any]) -> None:
    rows, predictions = measured
    broken = predictions | {
        name: [label + 1 if index % 7 == 0 else label for index, label in enumerate(predictions["label"])]
        for name in predictions
        if "int8" in name or "wi8" in name
    }
    choice = choose(Objective(kind="most_accurate", accuracy_drop_max=50.0), rows, broken)
    assert choice.chosen in ("onnx-fp16", "tflite-fp16")


def test_none_that_meets_the_objective_is_an_outcome(measured: tuple[list[ResultRow], Any]) -> None:
    choice = chosen(measured, accuracy_drop_max=-5.0)
    assert choice.chosen is None
    assert choice.nearest is not None
    assert f"The nearest is {choice.nearest}: it loses 0.5" in choice.reason
    failed = {row.artifact: {"error": "killed"} for row in measured[0]}
    assert "No converted artifact was measured on local" in chosen(measured, failed).reason


def test_a_device_that_was_not_measured_is_named(measured: tuple[list[ResultRow], Any]) -> None:
    with pytest.raises(ParamsError, match=r"'phone' was not measured\. Measured: board, local"):
        chosen(measured, device="phone")


@given(st.data())
def test_no_eligible_row_is_better_than_the_chosen_one_beyond_the_noise(
    measured: tuple[list[ResultRow], Any], data: st.DataObject
) -> None:
    middles = st.floats(1.0, 100.0)
    changes: dict[str, Change] = {}
    for row in measured[0]:
        middle = data.draw(middles)
        changes[row.artifact] = {
            "latency_p50_ms": middle, "latency_p50_ci_low_ms": 0.95 * middle, "latency_p50_ci_high_ms": 1.05 * middle,
            "valid_accuracy_drop": data.draw(st.floats(-2.0, 4.0)), "size_bytes": data.draw(st.integers(1, 10**8)),
        }  # fmt: skip
    kind = data.draw(st.sampled_from(["fastest", "smallest"]))
    choice = chosen(measured, changes, kind=kind)
    eligible = [c for c in choice.candidates if changes[c.artifact]["valid_accuracy_drop"] <= 1.0]
    assert (choice.chosen is None) == (not eligible)
    for other in eligible:
        mine, its = changes[str(choice.chosen)], changes[other.artifact]
        if kind == "smallest":
            assert mine["size_bytes"] <= its["size_bytes"]
        elif its["latency_p50_ci_high_ms"] < mine["latency_p50_ci_low_ms"]:
            pytest.fail(f"{other.artifact} is faster")


def test_the_report_says_what_is_shipped(sources: Sources) -> None:
    trial = {"logit_mean_rel_diff": 0.01, "logit_rel_diff": 0.1, "accuracy_drop": 0.2, "latency_gained_ms": 1.5,
             "error": None}  # fmt: skip
    dead = dict.fromkeys(trial) | {"name": "SOFTMAX", "operations": 3, "error": "the candidate gives NaN"}
    write_json(
        sources.sensitivity / f"{DYNAMIC}.json",
        {"rows": 512, "runs": 17, "everything": trial, "layers": [trial | {"name": "layer.0.attention"}],
         "kinds": [dead], "cells": [{"name": "layer.0.attention SOFTMAX", "operations": 1, "excluded": True}],
         "chosen": trial, "exclude": ["^Softmax;?$"], "reason": "layer.0.attention SOFTMAX stay in float"},
    )  # fmt: skip
    write_json(sources.sensitivity / "onnx-fp16.json", None)
    metrics = build_report(ReportParams(), sources, Path("report"), Objective(kind="smallest"))
    assert metrics["artifact"] == "onnx-dynamic_int8"
    document = json.loads(Path("report/choice.json").read_text(encoding="utf-8"))
    assert document["chosen"] == "onnx-dynamic_int8"
    assert document["objective"]["kind"] == "smallest"
    assert {c["artifact"] for c in document["candidates"]} == {"onnx-fp32", "tflite-fp32", "onnx-fp16",
        "onnx-dynamic_int8", "tflite-fp16", DYNAMIC, "tflite-static_wi8_ai8"}  # fmt: skip
    page, card = (Path("report", name).read_text(encoding="utf-8") for name in ("index.html", "MODEL_CARD.md"))
    assert "onnx-dynamic_int8 is the smallest of 6 converted artifacts on local" in page
    assert "onnx-dynamic\\_int8 is the smallest" in card or "onnx-dynamic_int8 is the smallest" in card
    assert page.count("layer.0.attention alone") == 1
    assert "the candidate gives NaN" in page


def test_without_a_choice_the_report_is_still_built(sources: Sources) -> None:
    metrics = build_report(ReportParams(), sources, Path("report"), Objective(accuracy_drop_max=-9.0))
    assert metrics["objective_met"] is False
    assert "artifact" not in metrics
    assert json.loads(Path("report/choice.json").read_text(encoding="utf-8"))["chosen"] is None
    assert "No converted model meets the objective" in Path("report/index.html").read_text(encoding="utf-8")

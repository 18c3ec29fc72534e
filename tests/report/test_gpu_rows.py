"""A file that was measured on a device's processor and on its GPU: rows of one artifact that must not be confused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pocketbert.params import Budget, Objective, ReportParams
from pocketbert.report.build import build_report
from pocketbert.report.facts import Facts, gather_facts
from pocketbert.report.sources import Sources
from pocketbert.results_table import results_rows
from pocketbert.tracking.state import _row_metrics
from tests.report.conftest import write_sources

GPU = "tflite-fp32@gpu-fp16_sums_fp32"
REFUSED = "tflite-dynamic_wi8_afp32@gpu-fp16_sums_fp32"
NOTHING = {"latency_p50_ms": None, "latency_p90_ms": None, "latency_p50_ci_ms": None, "logit_rel_diff": None}
BUDGETS = [Budget(artifact="tflite-fp32", device="local", latency_p90_ms_max=10.0)]


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """The usual results, with a GPU on which one file is faster than anything and another one fails."""
    sources = write_sources(tmp_path)
    path = sources.benchmarked / "local/benchmark.json"
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    on_gpu = {"accelerator": "gpu", "gpu_precision": "fp16_sums_fp32"}
    for row in list(document["rows"]):
        if row["artifact"] == "tflite-fp32":
            quick = {"latency_p50_ms": 2.5, "latency_p90_ms": 2.6, "latency_p50_ci_ms": [2.4, 2.6]}
            document["rows"].append({**row, **on_gpu, **quick})
        if row["artifact"] == "tflite-dynamic_wi8_afp32":
            document["rows"].append({**row, **on_gpu, **NOTHING, "error": "the driver crashed"})
    path.write_text(json.dumps(document), encoding="utf-8")
    return sources


@pytest.fixture
def facts(sources: Sources) -> Facts:
    return gather_facts(ReportParams(budgets=BUDGETS), Objective(kind="fastest"), sources)


def test_the_row_is_chosen_and_not_its_file_s_other_row(facts: Facts) -> None:
    assert facts.headline is not None
    assert (facts.choice.chosen, facts.choice.measurement) == ("tflite-fp32", GPU)
    assert facts.headline.latency_p50_ms == 2.5
    assert facts.choice.reason.startswith(f"{GPU} is the fastest of 6 converted artifacts")


def test_each_row_is_named_and_marked_for_itself(facts: Facts, sources: Sources, tmp_path: Path) -> None:
    assert (GPU, "local") in facts.best
    assert not {("tflite-fp32", "local"), (REFUSED, "local")} & facts.best
    build_report(ReportParams(), sources, tmp_path / "report", Objective(kind="fastest"))
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    rows = {
        name: row
        for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL)
        for name in re.findall(r'<td data-v="([^"]+)"><span', row)
    }
    assert {"tflite-fp32", GPU, REFUSED} < set(rows)
    assert [name for name, row in rows.items() if 'class="chosen"' in row] == [GPU]
    assert "the driver crashed" in rows[REFUSED]
    card = (tmp_path / "report/MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"| {GPU} | local |" in card
    assert f"{REFUSED} was not measured on local: the driver crashed" in card
    shown = [row[0] for row in results_rows(tmp_path / "report")[1]]
    assert len(shown) == len(set(shown)) and GPU in shown


def test_a_budget_judges_and_names_both(facts: Facts) -> None:
    assert [(verdict.measurement, verdict.passed) for verdict in facts.verdicts] == [
        ("tflite-fp32", False),
        (GPU, True),
    ]


def test_neither_row_s_metrics_overwrite_the_other_s() -> None:
    row = {"artifact": "tflite-fp32", "device": "board", "latency_p50_ms": "14.5"}
    both = _row_metrics({**row, "gpu_precision": ""}) | _row_metrics({**row, "gpu_precision": "fp16"})
    assert list(both) == ["tflite-fp32.board.latency_p50_ms", "tflite-fp32_gpu-fp16.board.latency_p50_ms"]

import json
import re
from pathlib import Path

import pytest

from pocketbert.devices.rows import BenchmarkRow
from pocketbert.errors import BudgetError, PocketBertError
from pocketbert.params import Budget, ReportParams
from pocketbert.report.build import FAILED_FOLDER, build_report
from pocketbert.report.sources import MeasuredRow, Sources
from pocketbert.report.table import COLUMNS, ResultRow
from tests.report.conftest import ARTIFACTS, write_json
from tests.report.edits import PARAMS, SHIPPED, edit_benchmark, read_rows

# What readers of results.csv count on, in this order.
CONTRACT = """artifact, format, recipe, device, runtime, accelerator, precision, sequence_length, threads, size_bytes,
accuracy, macro_f1, accuracy_drop, logit_max_abs_diff, logit_rel_diff, latency_p50_ms, latency_p90_ms,
memory_peak_bytes, cpu_percent, power_mean_mw, delegated_ops, total_ops, partitions, md5"""


def test_columns_are_the_contract_and_match_the_row() -> None:
    assert ", ".join(COLUMNS[:24]) == " ".join(CONTRACT.split())
    assert set(COLUMNS) == set(ResultRow.model_fields)


def test_the_benchmark_writes_what_the_report_reads() -> None:
    assert set(MeasuredRow.model_fields) <= set(BenchmarkRow.model_fields)


def test_results_csv_has_a_row_an_artifact_and_no_invented_figures(sources: Sources) -> None:
    metrics = build_report(PARAMS, sources, Path("report"))
    rows = read_rows(Path("report"))
    assert list(rows) == [entry[0] for entry in ARTIFACTS]
    assert rows["teacher"]["logit_rel_diff"] == rows["teacher"]["power_mean_mw"] == ""
    assert rows["onnx-fp32"]["delegated_ops"] == rows["onnx-fp32"]["error"] == ""
    assert float(rows[SHIPPED]["accuracy"]) == pytest.approx(0.958, abs=0.001)
    assert not re.search(
        r"\b(nan|none|null|inf)\b", (Path("report") / "results.csv").read_text().replace(",none,", ",")
    )
    assert metrics["artifact"] == SHIPPED
    assert metrics["speed_up"] == pytest.approx(
        float(rows["teacher"]["latency_p50_ms"]) / float(rows[SHIPPED]["latency_p50_ms"])
    )


def test_the_same_files_give_the_same_bytes(sources: Sources) -> None:
    for folder in ("first", "second"):
        build_report(PARAMS, sources, Path(folder))
    for name in ("index.html", "results.csv", "MODEL_CARD.md"):
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes()


def test_over_budget_names_every_row_and_keeps_the_report(sources: Sources) -> None:
    budgets = [
        Budget(artifact="tflite-*", accuracy_drop_max=2.0),
        Budget(artifact=SHIPPED, size_bytes_max=17_000_000),
        Budget(artifact="coreml-*", accuracy_drop_max=1.0),
    ]
    with pytest.raises(BudgetError) as caught:
        build_report(ReportParams(budgets=budgets), sources, Path("report"))
    message = str(caught.value)
    assert "tflite-static_wi8_ai8 on local: accuracy_drop 3." in message
    assert f"{SHIPPED} on local: size_bytes 17,900,000 > 17,000,000 bytes" in message
    assert "coreml-* on *: the budget matches no row" in message
    assert "tflite-fp16" not in message
    assert str(FAILED_FOLDER / "index.html") in message
    assert "\n" not in message
    kept = (FAILED_FOLDER / "index.html").read_text(encoding="utf-8")
    assert "3 of 6 checks fail" in kept
    build_report(PARAMS, sources, Path("again"))
    assert not FAILED_FOLDER.exists()


def test_a_latency_of_another_file_is_refused(sources: Sources) -> None:
    edit_benchmark(sources, lambda document: document["rows"][3].update(md5="0" * 32))
    with pytest.raises(PocketBertError, match=r"tflite-fp32 \(md5 0+\) was measured on local but its accuracy"):
        build_report(PARAMS, sources, Path("report"))


def test_an_artifact_that_was_not_measured_is_refused(sources: Sources) -> None:
    edit_benchmark(sources, lambda document: document["rows"].pop())
    with pytest.raises(PocketBertError, match="tflite-static_wi8_ai8 was evaluated but not measured on local"):
        build_report(PARAMS, sources, Path("report"))


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("results/evaluate/evaluate.json", "[{", "cannot be read"),
        ("results/evaluate/evaluate.json", '[{"artifact": "teacher"}]', "0.format: Field required"),
        ("results/evaluate/predictions.parquet", "no parquet", "cannot be read"),
        ("results/validate/validate.json", '{"artifacts": {}}', "params: Field required"),
        ("data/prepared/labels.json", "{}", "cannot be read"),
    ],
)
def test_a_broken_source_is_named(sources: Sources, path: str, content: str, words: str) -> None:
    Path(path).write_text(content, encoding="utf-8")
    with pytest.raises(PocketBertError, match=words) as caught:
        build_report(PARAMS, sources, Path("report"))
    assert path in str(caught.value)


def test_a_proof_of_another_file_is_refused(sources: Sources) -> None:
    path = sources.validated / "validate.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["artifacts"]["onnx-fp32"]["md5"] = "0" * 32
    write_json(path, document)
    with pytest.raises(PocketBertError, match="onnx-fp32 was proven as md5 000"):
        build_report(PARAMS, sources, Path("report"))


def test_a_nan_in_a_source_is_refused(sources: Sources) -> None:
    edit_benchmark(sources, lambda document: document["rows"][0].update(latency_p50_ms=float("nan")))
    with pytest.raises(PocketBertError, match=r"rows\.0\.latency_p50_ms"):
        build_report(PARAMS, sources, Path("report"))

import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pocketbert.data.dataset import LabelSet, read_labels, write_labels
from pocketbert.devices.rows import BenchmarkRow
from pocketbert.errors import BudgetError, PocketBertError
from pocketbert.params import Budget, ReportParams
from pocketbert.report.build import FAILED_FOLDER, build_report
from pocketbert.report.sources import MeasuredRow, Sources
from pocketbert.report.table import COLUMNS, ResultRow
from tests.report.conftest import ARTIFACTS, write_json, write_sources

SHIPPED = "tflite-dynamic_wi8_afp32"
PARAMS = ReportParams(budgets=[Budget(artifact=SHIPPED, accuracy_drop_max=2.0)])
# What readers of results.csv count on, in this order.
CONTRACT = """artifact, format, recipe, device, runtime, accelerator, precision, sequence_length, threads, size_bytes,
accuracy, macro_f1, accuracy_drop, logit_max_abs_diff, logit_rel_diff, latency_p50_ms, latency_p90_ms,
memory_peak_bytes, cpu_percent, power_mean_mw, delegated_ops, total_ops, partitions, md5"""


def edit_benchmark(sources: Sources, change: Callable[[dict[str, Any]], None]) -> None:
    path = sources.benchmarked / "local/benchmark.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    write_json(path, document)


def fail_row(name: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        row = next(row for row in document["rows"] if row["artifact"] == name)
        for key, value in row.items():
            if isinstance(value, float | list) or key in ("memory_peak_bytes", "runtime", "accelerator"):
                row[key] = None
        row |= {"runs": 0, "error": "the worker was killed by SIGSEGV. <script>alert(1)</script>"}

    return change


def read_rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "results.csv").open(encoding="utf-8", newline="") as stream:
        return {row["artifact"]: row for row in csv.DictReader(stream)}


class References(HTMLParser):
    """Everything on a page that a browser would fetch, and all ids."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "data", "action") and not (value or "").startswith("#"):
                self.fetched.append(f"{tag} {name}={value}")


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


@pytest.mark.parametrize(("classes", "devices"), [(28, ("local",)), (150, ("board", "local"))])
def test_the_page_fetches_nothing_and_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int, devices: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    build_report(PARAMS, write_sources(tmp_path, classes, 4500, devices), Path("report"))
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    found = References()
    found.feed(page)
    assert found.fetched == []
    assert len(found.ids) == len(set(found.ids))
    assert "default-src 'none'" in page
    assert len(page) < 1_500_000
    for name in [entry[0] for entry in ARTIFACTS]:
        assert name in page
    assert len(read_rows(tmp_path / "report")) == len(ARTIFACTS)


def test_the_same_files_give_the_same_bytes(sources: Sources) -> None:
    for folder in ("first", "second"):
        build_report(PARAMS, sources, Path(folder))
    for name in ("index.html", "results.csv", "MODEL_CARD.md"):
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes()


def test_a_failed_row_is_shown_escaped_and_empty(sources: Sources) -> None:
    edit_benchmark(sources, fail_row("onnx-fp16"))
    metrics = build_report(PARAMS, sources, Path("report"))
    row = read_rows(Path("report"))["onnx-fp16"]
    assert "SIGSEGV" in row["error"]
    assert row["latency_p50_ms"] == row["memory_peak_bytes"] == row["runs"] == ""
    assert row["accuracy"]
    assert metrics["failed_rows"] == 1
    page = Path("report/index.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "<script>alert" not in Path("report/MODEL_CARD.md").read_text(encoding="utf-8")


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


def test_a_teacher_that_did_not_train_has_no_curve(sources: Sources) -> None:
    for name, header in (("curve.csv", "epoch,train_loss,valid_loss,valid_accuracy\n"), ("loss.csv", "")):
        (sources.curves["teach"] / name).write_text(header, encoding="utf-8")
    build_report(PARAMS, sources, Path("report"))
    assert "No curve was recorded" in Path("report/index.html").read_text(encoding="utf-8")


def test_the_card_says_what_it_is_and_how_to_run_it(sources: Sources) -> None:
    build_report(PARAMS, sources, Path("report"))
    card = Path("report/MODEL_CARD.md").read_text(encoding="utf-8")
    assert "**Synthetic**" in card
    assert f"pocketbert predict --model models/quantized/{SHIPPED} --text" in card
    for heading in ("Intended use", "Data", "Architecture", "Training", "Evaluation", "Proof", "Limits", "How to run"):
        assert f"\n## {heading}" in card
    # Every line of a table has as many cells as its head.
    for table in re.findall(r"(?:^\|.*\n)+", card, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_a_multi_label_task_has_no_confusion(sources: Sources) -> None:
    labels = read_labels(sources.prepared)
    write_labels(LabelSet(labels.names, "multi_label"), sources.prepared)
    path = sources.evaluated / "predictions.parquet"
    columns = pq.read_table(path).to_pydict()
    pq.write_table(pa.table({name: [[value] for value in values] for name, values in columns.items()}), path)
    build_report(PARAMS, sources, Path("report"))
    assert "no confusion matrix" in Path("report/index.html").read_text(encoding="utf-8")


def test_real_data_is_not_called_synthetic(sources: Sources) -> None:
    path = sources.prepared / "report.json"
    document = json.loads(path.read_text(encoding="utf-8")) | {"source": {"all": "clinc150/train.csv"}}
    write_json(path, document)
    build_report(PARAMS, sources, Path("report"))
    assert "ynthetic" not in Path("report/MODEL_CARD.md").read_text(encoding="utf-8")
    assert "ynthetic" not in Path("report/index.html").read_text(encoding="utf-8")


def test_the_page_shows_the_layers_and_where_they_diverge(sources: Sources) -> None:
    path = sources.validated / "layers.json"
    document = json.loads(path.read_text())
    off = document["artifacts"]["tflite-fp32"]
    off["first_divergence"] = "layer.1"
    off["layers"][2] |= {"rel_diff": None, "max_abs_diff": None}
    document["artifacts"]["onnx-fp32"] |= {"layers": [], "unknown": "no layer can be told", "worst": None}
    path.write_text(json.dumps(document))
    build_report(ReportParams(), sources, Path("report"))
    page = Path("report/index.html").read_text()
    section = page[page.index('<section id="layers">') : page.index('<section id="latency">')]
    assert "<svg" in section
    assert section.count("<tr><td>layer.") == 3
    assert '<td class="fail">–' in section
    assert "<td>no layer can be told</td><td>none</td><td>layer.1</td>" in section

"""The page and the card."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pocketbert.data.dataset import LabelSet, read_labels, write_labels
from pocketbert.params import ReportParams
from pocketbert.report.build import build_report
from pocketbert.report.sources import Sources
from tests.report.conftest import ARTIFACTS, write_json, write_sources
from tests.report.edits import PARAMS, SHIPPED, edit_benchmark, fail_row, read_rows


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


@pytest.mark.parametrize(("classes", "devices"), [(28, ("local",)), (150, ("board", "local"))])
def test_the_page_fetches_nothing_and_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int, devices: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    build_report(PARAMS, write_sources(tmp_path, classes, 4500, devices), Path("report"))
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    found = References()
    found.feed(page)
    # The pages of the devices, which lie beside it, are followed on a click.
    assert found.fetched == [f"a href=device-{device}.html" for device in devices]
    assert len(found.ids) == len(set(found.ids))
    assert "default-src 'none'" in page
    assert len(page) < 1_500_000
    for name in [entry[0] for entry in ARTIFACTS]:
        assert name in page
    assert len(read_rows(tmp_path / "report")) == len(ARTIFACTS)


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


def test_page_and_card_say_what_the_bytes_are_spent_on(sources: Sources) -> None:
    build_report(PARAMS, sources, Path("report"))
    row = read_rows(Path("report"))["tflite-fp16"]
    parts = [int(row[f"{part}_bytes"]) for part in ("embeddings", "encoder", "head", "other")]
    assert sum(parts) == int(row["size_bytes"])
    assert row["vocabulary_tokens"] == "30522"
    page = Path("report/index.html").read_text(encoding="utf-8")
    section = page[page.index('<section id="parts">') : page.index('<section id="proof">')]
    assert section.count("<td>30,522</td>") == len(ARTIFACTS)
    assert "<tr><td>tflite-fp16</td><td>21.0 MB</td><td>10.5 MB</td>" in section
    assert "| tflite-fp16 | 21.0 MB | 10.5 MB |" in Path("report/MODEL_CARD.md").read_text(encoding="utf-8")

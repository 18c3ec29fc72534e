"""A page a device: rows with empty cells, histograms, sensors over time."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pocketbert.params import ReportParams
from pocketbert.report.build import build_report
from pocketbert.report.html import device_page_name
from pocketbert.report.sources import Sources
from tests.report.conftest import ARTIFACTS, write_json, write_sources
from tests.report.edits import PARAMS, edit_benchmark, fail_row


def page_of(device: str = "local") -> str:
    return Path("report", device_page_name(device)).read_text(encoding="utf-8")


def section(page: str, name: str) -> str:
    start = page.index(f'<section id="{name}">')
    return page[start : page.index("</section>", start)]


def write_telemetry(folder: Path, **columns: list[float | None]) -> None:
    seconds = [float(i) for i in range(4)]
    table = {"at_s": seconds, "artifact": ["a"] * 4, "round": [0] * 4, **columns}
    pq.write_table(pa.table(table), folder / "telemetry.parquet")


def test_every_device_has_a_page_that_the_report_links_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build_report(PARAMS, write_sources(tmp_path, devices=("board", "local")), Path("report"))
    index = Path("report/index.html").read_text(encoding="utf-8")
    for device in ("board", "local"):
        assert f'href="device-{device}.html"' in index
        page = page_of(device)
        assert f"<h1>{device}</h1>" in page
        assert "default-src 'none'" in page
        assert "<script" not in page
        assert section(page, "latency").count("<svg") == 1
        for name, *_ in ARTIFACTS:
            assert f"<td>{name}<small>" in section(page, "rows")


def test_unknown_readings_are_empty_and_known_ones_are_shown(sources: Sources) -> None:
    build_report(PARAMS, sources, Path("report"))
    page = page_of()
    assert "No sensor gave a reading over time" in section(page, "telemetry")
    # No power, no temperature, no throttling counter; p99 was not recorded by that version.
    row = section(page, "rows").split("<tr>")[-1]
    assert row.count("<td>–</td>") == 4
    assert ">0 W<" not in page
    write_telemetry(
        sources.benchmarked / "local", temperature_c=[40.0, None, 44.0, 45.0], power_mw=[None] * 4,
        gpu_mhz=[500.0, 500.0, 400.0, 300.0],
    )  # fmt: skip
    edit_benchmark(
        sources,
        lambda document: document.update(
            telemetry_sources={"temperature": "/sys/class/thermal/thermal_zone0/temp", "power": None}
        ),
    )
    build_report(PARAMS, sources, Path("report"))
    told = section(page_of(), "telemetry")
    assert "temperature, °C" in told
    assert "GPU clock, MHz" in told
    assert "power, W" not in told
    assert "<code>/sys/class/thermal/thermal_zone0/temp</code>" in told


def test_a_failed_row_and_a_device_that_is_down_are_shown_as_missing(sources: Sources) -> None:
    edit_benchmark(sources, fail_row("onnx-fp16"))
    build_report(PARAMS, sources, Path("report"))
    assert "missing: the worker was killed by SIGSEGV. &lt;script&gt;" in section(page_of(), "rows")
    for name, *_ in ARTIFACTS:
        edit_benchmark(sources, fail_row(name))
    path = sources.benchmarked / "local/benchmark.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["device"] = {"name": "local", "kind": "ssh", "error": "no route to host"}
    write_json(path, document)
    empty = {"artifact": pa.array([], pa.string()), "round": pa.array([], pa.int32()),
             "run": pa.array([], pa.int32()), "latency_ms": pa.array([], pa.float64())}  # fmt: skip
    pq.write_table(pa.table(empty), sources.benchmarked / "local/latencies.parquet")
    build_report(ReportParams(), sources, Path("report"))
    page = page_of()
    assert "no route to host" in page
    assert section(page, "rows").count("missing: ") == len(ARTIFACTS)
    assert "No latency was measured" in section(page, "latency")


def test_a_device_s_name_cannot_leave_the_folder() -> None:
    assert device_page_name("../a b/<c>") == "device-.._a_b__c_.html"

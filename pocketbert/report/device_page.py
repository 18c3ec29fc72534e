"""device-<name>.html for every device: hardware, sensors, rows, histograms, temperature and power over time."""

from pathlib import Path

from pocketbert import __version__
from pocketbert.report.device_plots import histogram_svg, telemetry_svg
from pocketbert.report.facts import Facts
from pocketbert.report.html import device_page_name, environment
from pocketbert.report.latency import note_latencies
from pocketbert.report.sources import Benchmark


def write_device_pages(facts: Facts, folder: Path) -> None:
    """Write a self-contained page a device into the report's folder."""
    for benchmark in facts.benchmarks:
        (folder / device_page_name(benchmark.name)).write_text(_page(facts, benchmark), encoding="utf-8")


def _page(facts: Facts, benchmark: Benchmark) -> str:
    from markupsafe import Markup

    name = benchmark.name
    latencies = facts.latencies[name]
    histogram = histogram_svg(facts.rows, latencies, name)
    telemetry = telemetry_svg(facts.telemetry[name], name)
    page: str = (
        environment()
        .get_template("device.html.j2")
        .render(
            benchmark=benchmark,
            rows=[row for row in facts.rows if row.device == name],
            notes={key: note_latencies(rounds) for key, rounds in latencies.items()},
            histogram=Markup(histogram) if histogram else None,  # noqa: S704 (our own SVG)
            telemetry=Markup(telemetry) if telemetry else None,  # noqa: S704
            version=__version__,
        )
    )
    return page

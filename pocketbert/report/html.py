"""index.html and MODEL_CARD.md from the facts; the page fetches nothing and says so to the browser."""

import re
from pathlib import Path
from typing import Any

from pocketbert import __version__
from pocketbert.report import format as text
from pocketbert.report.facts import Facts, flatten, model_folder
from pocketbert.report.plots import curves_svg, latency_svg, layers_svg, pareto_svg
from pocketbert.report.statistics import wilson_interval
from pocketbert.report.table import STUDENT, TEACHER, ResultRow


def write_page(facts: Facts, path: Path) -> None:
    """Write the self-contained HTML page."""
    from markupsafe import Markup

    plots: dict[str, Any] = {
        "devices": {
            b.name: {
                "latency_accuracy": Markup(pareto_svg(facts.rows, "latency_p50_ms", b.name)),  # noqa: S704 (our own SVG)
                "size_accuracy": Markup(pareto_svg(facts.rows, "size_bytes", b.name)),  # noqa: S704
                "latencies": Markup(latency_svg(facts.rows, facts.latencies[b.name], b.name)),  # noqa: S704
            }
            for b in facts.benchmarks
        },
        "layers": Markup(layers_svg(facts.layers)) if facts.layers.names else None,  # noqa: S704
        "curves": {
            c.stage: Markup(curves_svg(c.stage, c.curve, c.loss)) if c.curve or c.loss else None  # noqa: S704
            for c in facts.curves
        },
    }
    path.write_text(environment().get_template("index.html.j2").render(_view(facts), plots=plots), encoding="utf-8")


def write_card(facts: Facts, path: Path) -> None:
    """Write the model card, Markdown."""
    path.write_text(environment().get_template("MODEL_CARD.md.j2").render(_view(facts)), encoding="utf-8")


def _view(facts: Facts) -> dict[str, Any]:
    device = facts.rows[0].device
    return {
        "facts": facts,
        "teacher": facts.row(TEACHER, device),
        "student": facts.row(STUDENT, device),
        "headline_folder": model_folder(facts.headline.artifact) if facts.headline else None,
        "intervals": {row.artifact: wilson_interval(row.accuracy, row.test_rows) for row in facts.rows},
        "data_figures": _data_figures(facts),
        "version": __version__,
    }


def _data_figures(facts: Facts) -> dict[str, Any]:
    """The data report's figures, without its long lists and the counts of each class."""
    skipped = ("source", "classes", "conflicting_texts.examples")
    return {
        key: value
        for key, value in flatten(facts.data)
        if not key.startswith(skipped) and not (isinstance(value, list) and len(value) > 10)
    }


def device_page_name(device: str) -> str:
    """File name of a device's page."""
    return f"device-{re.sub(r'[^A-Za-z0-9._-]', '_', device)}.html"


def environment() -> Any:
    """Jinja with the report's templates and filters."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("pocketbert.report"),
        # Labels and texts come from data files: escaped in HTML; Markdown has a filter of its own.
        autoescape=select_autoescape(enabled_extensions=("html.j2",), default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": text.percent, "points": text.points, "ms": text.milliseconds, "mb": text.megabytes,
        "sci": text.scientific, "sig": text.significant, "plain": text.plain, "words": text.words, "cell": _cell,
    }  # fmt: skip
    environment.globals |= {"interval_ms": _interval_ms, "device_page": device_page_name}
    return environment


def _cell(value: object) -> str:
    """Text that cannot break a Markdown table or smuggle markup into it."""
    escaped = text.plain(value).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
    return " ".join(escaped.split())


def _interval_ms(row: ResultRow) -> str:
    if row.latency_p50_ci_low_ms is None or row.latency_p50_ci_high_ms is None:
        return ""
    return f"{text.significant(row.latency_p50_ci_low_ms)}–{text.significant(row.latency_p50_ci_high_ms)}"

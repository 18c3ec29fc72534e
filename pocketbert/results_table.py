"""The table of results for a terminal."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from pocketbert.devices.retry import AGAIN, RESULTS, unreached
from pocketbert.errors import ParamsError
from pocketbert.measurement import measurement_name


def _megabytes(size_bytes: str) -> str:
    return f"{int(size_bytes) / 1e6:.1f}"


# Column of results.csv, heading, how its text is shown; the CSV itself has all columns.
_COLUMNS: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    ("artifact", "artifact", str),
    ("device", "device", str),
    ("threads", "threads", str),
    ("size_bytes", "size MB", _megabytes),
    ("accuracy", "accuracy", lambda v: f"{float(v):.4f}"),
    ("accuracy_drop", "drop points", lambda v: f"{float(v):+.2f}"),
    ("macro_f1", "macro F1", lambda v: f"{float(v):.4f}"),
    ("logit_rel_diff", "logit rel diff", lambda v: f"{float(v):.1e}"),
    ("latency_p50_ms", "p50 ms", lambda v: f"{float(v):.2f}"),
    ("latency_p90_ms", "p90 ms", lambda v: f"{float(v):.2f}"),
    ("memory_peak_bytes", "memory MB", _megabytes),
)


def results_rows(report: Path) -> tuple[list[str], list[list[str]]]:
    """(headings, rows) of results.csv in the report's folder, as text; raises ParamsError where there is none."""
    path = report / "results.csv"
    if not path.is_file():
        raise ParamsError(f"{path} does not exist", "Run `dvc repro` first.")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [
            {**row, "artifact": measurement_name(row["artifact"], row.get("gpu_precision") or None)}
            for row in csv.DictReader(stream)
        ]
    # Unknown is empty, never 0.
    shown = [[show(row[name]) if row.get(name) else "" for name, _, show in _COLUMNS] for row in rows]
    return [heading for _, heading, _ in _COLUMNS], shown


def print_results(report: Path) -> None:
    """Print results.csv of the report's folder as a table; raises ParamsError where there is none."""
    from rich.console import Console
    from rich.table import Table

    path = report / "results.csv"
    headings, rows = results_rows(report)
    table = Table()
    for heading in headings[:2]:
        table.add_column(heading, overflow="fold")
    for heading in headings[2:]:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        # A pipe has no width of its own; 80 columns would cut figures.
        console = Console(width=160)
    console.print(table)
    if (report / "choice.json").is_file():
        print(f"chosen  {json.loads((report / 'choice.json').read_text(encoding='utf-8'))['reason']}")
    for name, reason in _missing(report.parent / RESULTS):
        print(f"missing the rows of {name}. {reason} {AGAIN}")
    print(f"table   {path}\nreport  {report / 'index.html'}\ncard    {report / 'MODEL_CARD.md'}\nMLflow  {_store()}")


def _missing(results: Path) -> Iterator[tuple[str, str]]:
    """Devices that gave no rows, each with the reason."""
    return unreached(sorted(place.name for place in results.iterdir()), results) if results.is_dir() else iter(())


def _store() -> str:
    """Where runs are remembered, without its password."""
    from pocketbert.params import load_params
    from pocketbert.redaction import hide_secrets
    from pocketbert.tracking.location import tracking_uri

    return hide_secrets(tracking_uri(load_params().publish))

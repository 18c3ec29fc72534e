"""Reading and breaking the results that the report is built from."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pocketbert.params import Budget, ReportParams
from pocketbert.report.sources import Sources
from tests.report.conftest import write_json

SHIPPED = "tflite-dynamic_wi8_afp32"
PARAMS = ReportParams(budgets=[Budget(artifact=SHIPPED, accuracy_drop_max=2.0)])


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

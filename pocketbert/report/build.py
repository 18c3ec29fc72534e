"""Build the report's folder, and judge the budgets."""

import json
import shutil
from pathlib import Path

from pocketbert.errors import BudgetError
from pocketbert.params import Objective, ReportParams
from pocketbert.report.device_page import write_device_pages
from pocketbert.report.facts import Facts, gather_facts
from pocketbert.report.html import write_card, write_page
from pocketbert.report.sources import Sources
from pocketbert.report.table import write_csv
from pocketbert.stage import STATE_FOLDER, Metrics

__all__ = ["FAILED_FOLDER", "Sources", "build_report"]

# A failed stage's outputs are deleted; this copy shows why it failed.
FAILED_FOLDER = STATE_FOLDER / "failed" / "report"


def build_report(params: ReportParams, sources: Sources, folder: Path, objective: Objective | None = None) -> Metrics:
    """Write results.csv, choice.json, index.html, MODEL_CARD.md and a page a device into `folder`; return the headline.

    Raises BudgetError that names every row over its budget, and keeps a copy of the report in FAILED_FOLDER;
    raises PocketBertError where the files of other stages do not belong together.
    """
    facts = gather_facts(params, objective or Objective(), sources)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(facts.rows, folder / "results.csv")
    document = json.dumps(facts.choice.as_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "choice.json").write_text(document + "\n", encoding="utf-8")
    write_page(facts, folder / "index.html")
    write_card(facts, folder / "MODEL_CARD.md")
    write_device_pages(facts, folder)
    shutil.rmtree(FAILED_FOLDER, ignore_errors=True)
    if facts.failed:
        shutil.copytree(folder, FAILED_FOLDER)
        raise BudgetError(
            "over budget: " + "; ".join(str(verdict) for verdict in facts.failed),
            f"Look at {FAILED_FOLDER / 'index.html'}; improve the model, or change report.budgets in params.yaml.",
        )
    return _headline(facts)


def _headline(facts: Facts) -> Metrics:
    row = facts.headline
    metrics: dict[str, float | int | str | bool | None] = {
        "rows": len(facts.rows),
        "failed_rows": sum(r.error is not None for r in facts.rows),
        "budgets_checked": len(facts.verdicts),
        "objective_met": facts.choice.chosen is not None,
    }
    if row is not None:
        metrics |= {
            "artifact": row.artifact,
            "accuracy": row.accuracy,
            "accuracy_drop": row.accuracy_drop,
            "valid_accuracy_drop": row.valid_accuracy_drop,
            "latency_p50_ms": row.latency_p50_ms,
            "size_bytes": row.size_bytes,
            "speed_up": facts.speed_up(row),
        }
    return metrics

"""The results of a run as a Prefect artifact: the table, and where the MLflow run and the report are."""

import json
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from flows.servers import MODEL_PAGES
from pocketbert.params import load_params
from pocketbert.redaction import hide_secrets
from pocketbert.results_table import results_rows
from pocketbert.tracking.location import tracking_uri

ARTIFACT_KEY = "results"
_REPORT = Path("report")
_PUBLISHED = Path("results/publish/publish.json")


def publish_results() -> None:
    """Create the artifact of this flow run; a pipeline without a report has none."""
    if (_REPORT / "results.csv").is_file():
        create_markdown_artifact(results_markdown(), key=ARTIFACT_KEY, description="Results of this state")


def results_markdown() -> str:
    """Links, then the table of `pocketbert results`."""
    headings, rows = results_rows(_REPORT)
    # The first two columns are names, the others numbers.
    rule = ["---", "---", *["---:"] * (len(headings) - 2)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [headings, rule, *rows])
    return f"{_links()}\n\n{table}\n"


def tracking_page() -> str | None:
    """Where MLflow's pages are for whoever reads them here; None for an embedded store, which has none."""
    # It may be the embedded store of params.yaml that `make up` serves.
    uri = hide_secrets(tracking_uri(load_params().publish))
    return uri.rstrip("/") if uri.startswith("http") else None


def _links() -> str:
    report = f"Report: `{(_REPORT / 'index.html').absolute()}`"
    if not _PUBLISHED.is_file():
        return report
    published = json.loads(_PUBLISHED.read_text(encoding="utf-8"))
    uri = published["tracking_uri"]
    page = tracking_page() or (uri.rstrip("/") if uri.startswith("http") else None)
    if page is None:
        return f"MLflow run `{published['run_id']}` in `{uri}`\n\n{report}"
    run = f"{page}/#/experiments/{published['experiment_id']}/runs/{published['run_id']}"
    shown = f"{run}/artifacts/report/index.html?{MODEL_PAGES}"
    return f"[MLflow run]({run}?{MODEL_PAGES}) · [Report]({shown})\n\n{report}"

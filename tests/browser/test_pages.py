"""Prefect's and MLflow's pages and the report, as a user sees them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from pocketbert.params import ReportParams
from pocketbert.report.build import build_report
from tests.flows.conftest import Session, environment, wait_for
from tests.flows.runs import api, finished, start, task_states
from tests.report.conftest import write_sources

pytestmark = pytest.mark.e2e
Shoot = Callable[[str], None]

# Two states of a pipeline, published as `publish` does.
TWO_STATES = """
from pocketbert.params import PublishParams
from pocketbert.tracking.store import Store
store = Store(PublishParams())
for number, (temperature, accuracy, latency) in enumerate([("1.0", 0.91, 3.5), ("4.0", 0.94, 7.25)]):
    run = store.client.create_run(store.experiment_id, run_name=f"cut-{number}", tags={"pocketbert.state": str(number)})
    store.log_params(run.info.run_id, {"distill.temperature": temperature, "distill.epochs": "3"})
    metrics = {"tflite.local.accuracy": accuracy, "tflite.local.latency_p50_ms": latency}
    store.log_points(run.info.run_id, [(1, 0, metrics)])
    store.end(run.info.run_id, "FINISHED", 2)
    print(run.info.run_id)
print(store.experiment_id)
"""


@pytest.fixture
def report_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    build_report(ReportParams(), write_sources(tmp_path), tmp_path / "report")
    return tmp_path / "report/index.html"


def test_the_run_page_shows_the_stages_in_order_with_a_cached_one(
    session: Session, page: Page, screenshot: Shoot
) -> None:
    assert finished(session, start(session, "rebuild"))["type"] == "COMPLETED"
    run = start(session, "rebuild", overrides=["report.worst_classes=11"])
    assert finished(session, run)["type"] == "COMPLETED"
    assert list(task_states(session, run)) == ["prepare", "finish"]
    page.goto(f"{session.prefect_url}/runs/flow-run/{run}")
    page.get_by_text("Task Runs", exact=True).first.click()
    expect(page.get_by_text("Cached").first).to_be_visible()
    expect(page.get_by_text("2 Task runs").first).to_be_visible()
    listed = page.inner_text("body").partition("Newest to Oldest")[2].split()
    # The newest comes first.
    assert listed.index("finish") < listed.index("Completed") < listed.index("prepare") < listed.index("Cached")
    screenshot("prefect-run")


def test_parameters_are_a_typed_form(session: Session, page: Page, screenshot: Shoot) -> None:
    deployment = api(session, "deployments/name/sweep/sweep")
    page.goto(f"{session.prefect_url}/deployments/deployment/{deployment['id']}/run")
    expect(page.get_by_text("jobs").first).to_be_visible()
    expect(page.get_by_text("Experiments at a time, on the worker's machine.").first).to_be_visible()
    screenshot("prefect-form")


def test_a_scheduled_run_appears_and_completes(session: Session, page: Page, screenshot: Shoot) -> None:
    done: list[dict[str, str]] = []

    def completed() -> bool:
        of_flow = {
            "flows": {"name": {"any_": ["watch_data"]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        }
        done.extend(run for run in api(session, "flow_runs/filter", of_flow) if run["auto_scheduled"])
        return bool(done)

    wait_for(completed, 300, "a run by the minutely schedule")
    page.goto(f"{session.prefect_url}/runs/flow-run/{done[0]['id']}")
    expect(page.get_by_text(done[0]["name"]).first).to_be_visible()
    expect(page.get_by_text("auto-scheduled").first).to_be_visible()
    # "Unchanged", or "Unbuilt" where it came before the first rebuild.
    expect(page.get_by_text(done[0]["state_name"]).first).to_be_visible()
    screenshot("prefect-schedule")


def test_mlflow_compares_two_experiments(session: Session, page: Page, screenshot: Shoot) -> None:
    told = subprocess.run(
        [sys.executable, "-c", TWO_STATES], cwd=session.root, env=environment(MLFLOW_TRACKING_URI=session.mlflow_url),
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    *runs, experiment = [line for line in told.stdout.split() if len(line) == 32 or line.isdecimal()]
    asked = f'runs=["{runs[0]}","{runs[1]}"]&experiments=["{experiment}"]'.replace('"', "%22")
    page.goto(f"{session.mlflow_url}/#/compare-runs?{asked}")
    for text in ("distill.temperature", "tflite.local.accuracy", "tflite.local.latency_p50_ms", "cut-0", "cut-1"):
        expect(page.get_by_text(text).first).to_be_visible()
    # Two metrics at least, else there is nothing to draw between.
    expect(page.locator(".pcp-plot .parcoords").first).to_be_attached()
    expect(page.locator(".pcp-plot")).to_be_visible()
    details = page.inner_text("body").partition("Run details")[2].split()
    assert details[details.index("distill.temperature") + 1 :][:2] == ["1.0", "4.0"]
    assert {"0.91", "0.94", "3.5", "7.25"} <= set(details)
    screenshot("mlflow-compare")


def test_the_report_shows_its_plots(page: Page, screenshot: Shoot, report_page: Path) -> None:
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url))
    page.goto(report_page.as_uri())
    expect(page.locator("h1").first).to_be_visible()
    plots = page.locator("img, svg, .js-plotly-plot")
    assert plots.count() > 2
    for index in range(plots.count()):
        box = plots.nth(index).bounding_box()
        assert box is None or (box["width"] > 50 and box["height"] > 50)
    screenshot("report")
    assert problems == []

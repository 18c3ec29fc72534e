import json
from pathlib import Path

import pytest

from flows.results import results_markdown

ROW = {"artifact": "tflite-fp32", "device": "local", "accuracy": "0.75", "latency_p50_ms": "12.5", "power_mean_mw": ""}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "params.yaml").write_text("{}", encoding="utf-8")
    (tmp_path / "report").mkdir()
    text = f"{','.join(ROW)}\n{','.join(ROW.values())}\n"
    (tmp_path / "report/results.csv").write_text(text, encoding="utf-8")
    return tmp_path


def publish(project: Path, uri: str) -> None:
    (project / "results/publish").mkdir(parents=True, exist_ok=True)
    document = {"tracking_uri": uri, "experiment_id": "3", "run_id": "abc"}
    (project / "results/publish/publish.json").write_text(json.dumps(document), encoding="utf-8")


def test_table_has_a_row_an_artifact_and_blanks_for_what_is_unknown(project: Path) -> None:
    lines = results_markdown().splitlines()
    heading = next(line for line in lines if line.startswith("| artifact"))
    values = dict(zip(heading.split("|")[1:-1], lines[-1].split("|")[1:-1], strict=True))
    values = {key.strip(): value.strip() for key, value in values.items()}
    assert (values["artifact"], values["accuracy"], values["p50 ms"]) == ("tflite-fp32", "0.7500", "12.50")
    assert values["memory MB"] == ""
    assert str(project / "report/index.html") in lines[0]


def test_an_embedded_store_has_no_page_unless_a_server_shows_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(project, "sqlite:////p/mlflow.db")
    assert "http" not in results_markdown()
    assert "`abc` in `sqlite:////p/mlflow.db`" in results_markdown()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:5000/")
    text = results_markdown()
    assert "127.0.0.1:5000/#/experiments/3/runs/abc?workflowType=machine_learning)" in text
    assert "secret" not in text


def test_a_server_that_was_published_to_is_linked(project: Path) -> None:
    publish(project, "http://127.0.0.1:5001")
    assert (
        "[MLflow run](http://127.0.0.1:5001/#/experiments/3/runs/abc?workflowType=machine_learning)"
        in results_markdown()
    )

"""Drivers that are missing, that crash and that hang: real ones, built here."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.cli import app
from pocketbert.data.dataset import Split
from pocketbert.delegation.stage import delegate_artifacts
from pocketbert.devices.benchmark import benchmark_artifacts
from pocketbert.errors import DeviceError
from pocketbert.export.token_axis import restore_token_axis
from pocketbert.params import BenchmarkParams, DelegateParams
from pocketbert.runtimes.isolated import run_isolated
from pocketbert.runtimes.litert_log import NoGpuError
from tests.delegation.graphs import LENGTH, convert, rows_beside_a_constant
from tests.delegation.project import write_project
from tests.devices.links.gpu_driver import breaking_driver
from tests.export.trained import SEQUENCE_LENGTH, exported, make_texts

ROWS = {name: np.ones((1, SEQUENCE_LENGTH), np.int32) for name in ("input_ids", "attention_mask", "token_type_ids")}


def tflite() -> Path:
    return exported("bert").tflite


def test_no_driver_is_said_and_is_exit_code_9(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", "/dev/null")
    with pytest.raises(NoGpuError, match="no GPU was found"):
        run_isolated(tflite() / "model.tflite", ROWS, accelerator="gpu")
    result = CliRunner().invoke(app, ["delegation", str(tflite())])
    assert isinstance(result.exception, DeviceError)
    assert result.exception.exit_code == 9
    assert "--predict" in str(result.exception)
    assert "by litert-2.3" in result.stdout and "no GPU was found" in result.stdout
    assert result.stdout.splitlines()[-1] == "whole by the rules, UNPROVEN"


def test_what_the_rules_refuse_is_not_whole_without_a_driver_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", "/dev/null")
    result = CliRunner().invoke(app, ["delegation", str(convert(tmp_path)), "--json"])
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert "no GPU was found" in document["missing"] and document["measured"] is None
    assert {finding["operator"] for finding in document["predicted"]["refused"]} >= {"GATHER", "STRIDED_SLICE"}


def test_a_driver_that_crashes_costs_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_driver: Callable[[str], None]
) -> None:
    """The stage goes on: one process dies an artifact and precision, and each row says so."""
    broken_driver("abort();")
    write_project(tmp_path / "project", software_gpu=True)
    monkeypatch.chdir(tmp_path / "project")
    artifacts = [read_artifact(tflite())]
    metrics = delegate_artifacts(DelegateParams(precisions=["fp32"]), artifacts, Path("data/prepared"), Path("out"))
    entry = json.loads(Path("out/delegate.json").read_text())["artifacts"]["tflite-fp32"]
    assert "killed by SIGABRT" in entry["measured"]["fp32"]["error"]
    assert entry["measured"]["fp32"]["placement"] is None
    assert entry["predicted"]["litert-2.3"]["whole"] and entry["agreed"] is None
    assert metrics["tflite-fp32"]["delegated_ops"] is None  # type: ignore[index,call-overload]


def test_a_driver_that_hangs_is_killed_within_the_limit(broken_driver: Callable[[str], None]) -> None:
    broken_driver("for (;;) sleep(1000);")
    started = time.monotonic()
    with pytest.raises(DeviceError, match="did not answer within 3 s"):
        run_isolated(tflite() / "model.tflite", ROWS, accelerator="gpu", timeout_s=3)
    assert time.monotonic() - started < 20


# What the driver does at its submission 12: a row of this graph takes four, so that it breaks in its third row.
IN_MID_RUN = {
    "abort": ("abort()", "killed by SIGABRT: the driver breaks at submission 12"),
    "segfault": ("*(volatile int *)0 = 1", "killed by SIGSEGV: the driver breaks at submission 12"),
    "error": ("return -4", "the GPU failed in mid-run: VK_ERROR_DEVICE_LOST"),
    "hang": ("for (;;) sleep(1000)", "did not answer within 5 s; the process was killed"),
}


@pytest.fixture
def breaking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Have Vulkan load Mesa's driver, which runs a C statement at the submission of the given number."""

    def make(statement: str, after: int) -> None:
        place = str(breaking_driver(tmp_path, statement, after=after))
        monkeypatch.setenv("VK_ICD_FILENAMES", place)
        monkeypatch.setenv("VK_DRIVER_FILES", place)

    return make


@pytest.mark.parametrize("how", IN_MID_RUN)
def test_a_driver_that_breaks_in_mid_run_is_one_clear_error_within_the_limit(
    how: str, tmp_path: Path, breaking: Callable[[str, int], None]
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(restore_token_axis(rows_beside_a_constant())[0])
    rows = {"input_ids": np.arange(8 * LENGTH, dtype=np.int32).reshape(8, LENGTH) % 50}
    statement, words = IN_MID_RUN[how]
    breaking(statement, 12)
    started = time.monotonic()
    with pytest.raises(DeviceError, match=words) as raised:
        run_isolated(path, rows, accelerator="gpu", timeout_s=5 if how == "hang" else 120)
    assert "\n" not in str(raised.value)
    assert time.monotonic() - started < (30 if how == "hang" else 120)


def test_the_pipeline_goes_on_and_each_row_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaking: Callable[[str, int], None]
) -> None:
    """The stage `delegate` and, behind it, `benchmark`: the processor's row is there."""
    breaking("abort()", 30)
    write_project(tmp_path / "project", software_gpu=True)
    monkeypatch.chdir(tmp_path / "project")
    delegate_artifacts(
        DelegateParams(precisions=["fp32"]), [read_artifact(tflite())], Path("data/prepared"), Path("out")
    )
    entry = json.loads(Path("out/delegate.json").read_text())["artifacts"]["tflite-fp32"]
    words = "killed by SIGABRT: the driver breaks at submission 30"
    assert words in entry["measured"]["fp32"]["error"]
    assert entry["predicted"]["litert-2.3"]["whole"] and entry["agreed"] is None
    texts, targets = make_texts(24, seed=3)
    source = read_artifact(exported("bert").classifier)
    student = Artifact(folder=source.folder, card=source.card.model_copy(update={"name": "student"}))
    params = BenchmarkParams(
        runs=10, rounds=1, warmup=1, sequence_length=SEQUENCE_LENGTH, proof_rows=6, accuracy_rows=8, timeout_s=120
    )
    split = Split(texts, np.asarray(targets))
    metrics = benchmark_artifacts(params, "local", [student, read_artifact(tflite())], split, Path("bench"))
    rows = {row["accelerator"]: row for row in json.loads(Path("bench/benchmark.json").read_text())["rows"][1:]}
    assert rows["cpu"]["error"] is None and rows["cpu"]["latency_p50_ms"] > 0
    assert words in rows["gpu"]["error"]
    assert rows["gpu"]["latency_p50_ms"] is None and rows["gpu"]["delegated_ops"] is None
    assert metrics["failed_rows"] == 1


def test_the_command_tells_of_a_crash_in_mid_run(breaking: Callable[[str, int], None]) -> None:
    breaking("abort()", 12)
    result = CliRunner().invoke(app, ["delegation", str(tflite()), "--timeout-s", "60"])
    assert result.exit_code == 9
    assert "killed by SIGABRT: the driver breaks at submission 12" in result.stdout
    assert "by litert-2.3" in result.stdout and result.stdout.splitlines()[-1] == "NOT whole"

"""Drivers that are missing, that crash and that hang: real ones, built here."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pocketbert.artifacts import read_artifact
from pocketbert.cli import app
from pocketbert.delegation.stage import delegate_artifacts
from pocketbert.errors import DeviceError
from pocketbert.params import DelegateParams
from pocketbert.runtimes.isolated import run_isolated
from pocketbert.runtimes.litert_log import NoGpuError
from tests.delegation.project import write_project
from tests.export.trained import SEQUENCE_LENGTH, exported

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


def test_a_crash_on_the_command_line_shows_the_rules_and_is_exit_code_9(broken_driver: Callable[[str], None]) -> None:
    broken_driver("abort();")
    result = CliRunner().invoke(app, ["delegation", str(tflite())])
    assert result.exit_code == 9
    assert "killed by SIGABRT" in result.stdout
    assert "by litert-2.3" in result.stdout

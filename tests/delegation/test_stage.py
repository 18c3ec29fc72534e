"""The stage with and without a GPU, and under a driver in software that is not allowed."""

import json
from pathlib import Path
from typing import Any

import pytest

from pocketbert.artifacts import read_artifact
from pocketbert.delegation.stage import delegate_artifacts
from pocketbert.errors import ParamsError
from pocketbert.params import DelegateParams
from tests.delegation.project import write_project
from tests.export.trained import exported


def run(monkeypatch: pytest.MonkeyPatch, root: Path, software_gpu: bool | None, **params: Any) -> tuple[Any, Any]:
    write_project(root, software_gpu=software_gpu)
    monkeypatch.chdir(root)
    artifacts = [read_artifact(exported("bert").tflite)]
    metrics = delegate_artifacts(DelegateParams(**params), artifacts, Path("data/prepared"), Path("out"))
    return metrics, json.loads(Path("out/delegate.json").read_text())


def test_without_a_gpu_entry_the_rules_alone_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, document = run(monkeypatch, tmp_path, None)
    assert document["missing"] == "devices.yaml gives local no gpu"
    entry = document["artifacts"]["tflite-fp32"]
    assert entry["measured"] is None and entry["agreed"] is None
    assert entry["predicted"]["litert-2.3"]["whole"]
    assert not entry["predicted"]["tflite-android-2.x"]["whole"]
    assert metrics["measured"] is False
    assert metrics["tflite-fp32"]["delegated_ops"] is None


def test_a_missing_driver_is_said_and_costs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", "/dev/null")
    metrics, document = run(monkeypatch, tmp_path, True)
    assert "no GPU was found" in document["missing"]
    assert document["artifacts"]["tflite-fp32"]["measured"] is None
    assert metrics["measured"] is False


def test_real_rows_are_right_on_the_gpu(gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, document = run(monkeypatch, tmp_path, True, rows=4)
    entry = document["artifacts"]["tflite-fp32"]
    assert document["missing"] is None and entry["agreed"]
    for precision in ("fp32", "fp16_sums_fp32"):
        found = entry["measured"][precision]
        assert found["whole"] and found["right"] and found["kind"] == "real" and found["rows"] == 4
        assert found["placement"]["adapter"] == gpu
    headline = metrics["tflite-fp32"]
    assert headline["delegated_ops"] == headline["total_ops"] == headline["predicted_ops_litert-2_3"]
    assert headline["rel_diff_fp32"] < 1e-5 < headline["rel_diff_fp16_sums_fp32"] < 1e-2


def test_software_is_refused_where_the_device_does_not_allow_it(
    gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "llvmpipe" not in gpu:
        pytest.skip("this machine has a real GPU")
    _, document = run(monkeypatch, tmp_path, False, precisions=["fp32"])
    assert "driver in software" in document["artifacts"]["tflite-fp32"]["measured"]["fp32"]["error"]


def test_an_unknown_device_or_profile_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParamsError, match="has no device 'board'"):
        run(monkeypatch, tmp_path / "a", None, device="board")
    with pytest.raises(ParamsError, match="there is no profile 'nnapi'"):
        run(monkeypatch, tmp_path / "b", None, profiles=["nnapi"])

"""The page's section about the GPU, from files as the stage writes them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from pocketbert.delegation.analyze import find_profile, predict_file
from pocketbert.errors import PocketBertError
from pocketbert.params import ReportParams
from pocketbert.report.build import build_report
from pocketbert.report.delegation import read_delegations
from tests.export.trained import exported
from tests.report.conftest import write_sources


def document(measured: bool) -> dict[str, Any]:
    path = exported("bert").tflite / "model.tflite"
    predicted = {}
    for name in ("litert-2.3", "tflite-android-2.x"):
        found = predict_file(path, find_profile(name))
        predicted[name] = dataclasses.asdict(found) | {"delegated": found.delegated, "whole": found.whole}
    total = predicted["litert-2.3"]["total"]
    placement = {"accelerator": "gpu", "adapter": "llvmpipe", "software": True, "total": total, "delegated": total,
                 "partitions": 1, "refused": []}  # fmt: skip
    run = {"placement": placement, "rel_diff": 5e-6, "limit": 1e-4, "dequantized": False, "right": True, "whole": True,
           "error": None}  # fmt: skip
    killed = run | {"placement": None, "rel_diff": None, "right": None, "error": "killed by <SIGABRT>"}
    same = run | {"rel_diff": None, "limit": None, "right": None, "whole": False, "unproven": "all rows give the same"}
    runs = {"fp32": run, "fp16": killed, "fp16_sums_fp32": same}
    entry = {
        "md5": "0" * 32,
        "predicted": predicted,
        "measured": runs,
        "agreed": True,
    }
    if not measured:
        entry |= {"measured": None, "agreed": None}
    missing = None if measured else "devices.yaml gives local no gpu"
    return {"device": "local", "missing": missing, "artifacts": {"tflite-fp32": entry}}


def page(tmp_path: Path, content: dict[str, Any]) -> str:
    sources = write_sources(tmp_path)
    folder = tmp_path / "results/delegate"
    folder.mkdir(parents=True)
    (folder / "delegate.json").write_text(json.dumps(content))
    build_report(ReportParams(), dataclasses.replace(sources, delegated=folder), tmp_path / "report")
    return (tmp_path / "report/index.html").read_text()


def test_the_page_shows_counts_results_and_cures(tmp_path: Path) -> None:
    html = page(tmp_path, document(measured=True))
    assert 'id="delegation"' in html and "a driver in software" in html
    assert "killed by &lt;SIGABRT&gt;" in html
    assert "export_tflite.profile: embeddings" in html
    assert "agree" in html
    assert "GPU, fp16_sums_fp32" in html and "not proven: all rows give the same" in html


def test_a_prediction_is_said_to_be_one(tmp_path: Path) -> None:
    html = page(tmp_path, document(measured=False))
    assert "Nothing was measured" in html and "devices.yaml gives local no gpu" in html
    assert "GPU, fp32" not in html


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "delegate.json").write_text('{"device": "local"}')
    with pytest.raises(PocketBertError, match=r"delegate\.json"):
        read_delegations(tmp_path)

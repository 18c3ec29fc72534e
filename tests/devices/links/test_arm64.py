"""`make test-arm64`: wheels for another processor, the agent and LiteRT on it, and logits that are right."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.data.dataset import Split
from pocketbert.devices.benchmark import benchmark_artifacts
from pocketbert.params import BenchmarkParams, ExportTfliteParams
from tests.devices.conftest import LENGTH, toy_targets, toy_texts
from tests.devices.links.arm64 import Arm64Board

BUILT = os.environ.get("POCKETBERT_ARM64")
pytestmark = pytest.mark.skipif(BUILT is None, reason="six minutes to build: make test-arm64")
PARAMS = BenchmarkParams(
    runs=10, rounds=1, warmup=1, sequence_length=LENGTH, proof_rows=12, accuracy_rows=20, timeout_s=300
)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm64Board]:
    running = Arm64Board(Path(str(BUILT)), tmp_path_factory.mktemp("arm64"))
    yield running
    running.stop()


def test_a_benchmark_on_another_processor(board: Arm64Board, student: Artifact, onnx: Artifact, project: Path) -> None:
    from pocketbert.export.tflite import export_tflite

    (project / "devices.yaml").write_text(f"devices:\n  arm: {board.entry()}\n", encoding="utf-8")
    export_tflite(ExportTfliteParams(sequence_length=LENGTH), student.folder, project / "tflite")
    split = Split(toy_texts(), np.array(toy_targets()))
    benchmark_artifacts(PARAMS, "arm", [student, onnx, read_artifact(project / "tflite")], split, project / "results")
    table = json.loads((project / "results/benchmark.json").read_text(encoding="utf-8"))
    assert table["device"]["architecture"] == "aarch64"
    rows = {row["artifact"]: row for row in table["rows"]}
    assert "torch" in rows.pop("student")["error"]
    assert set(rows) == {"onnx-fp32", "tflite-fp32"}
    for row in rows.values():
        assert row["error"] is None
        assert row["logit_rel_diff"] < 1e-4
        assert row["device_accuracy"] > 0.9
        assert row["latency_p50_ms"] > 0

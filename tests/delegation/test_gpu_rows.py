"""The benchmark's rows of a GPU, measured for real: where the operators ran, what it cost in accuracy, and no times."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pocketbert.artifacts import read_artifact
from pocketbert.data.dataset import Split
from pocketbert.devices.benchmark import benchmark_artifacts
from pocketbert.params import BenchmarkParams
from tests.delegation.project import write_project
from tests.export.trained import SEQUENCE_LENGTH, exported, make_texts

PARAMS = BenchmarkParams(
    runs=10, rounds=1, warmup=1, sequence_length=SEQUENCE_LENGTH, proof_rows=6, accuracy_rows=8, timeout_s=400
)


def test_a_gpu_has_rows_of_its_own_and_a_driver_in_software_no_times(
    gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(tmp_path, software_gpu=True)
    monkeypatch.chdir(tmp_path)
    # The benchmark compares with the artifact of this name.
    student = shutil.copytree(exported("bert").classifier, tmp_path / "student")
    card = json.loads((student / "artifact.json").read_text()) | {"name": "student"}
    (student / "artifact.json").write_text(json.dumps(card))
    texts, targets = make_texts(24, seed=3)
    artifacts = [read_artifact(student), read_artifact(exported("bert").tflite)]
    benchmark_artifacts(PARAMS, "local", artifacts, Split(texts, np.asarray(targets)), Path("out"))
    rows = {row["accelerator"]: row for row in json.loads(Path("out/benchmark.json").read_text())["rows"][1:]}
    on_cpu, on_gpu = rows["cpu"], rows["gpu"]
    assert on_gpu["error"] is None and on_gpu["md5"] == on_cpu["md5"]
    assert on_gpu["gpu_adapter"] == gpu and on_gpu["gpu_precision"] == "fp16_sums_fp32"
    assert on_gpu["delegated_ops"] > 50 and on_gpu["partitions"] == 1
    assert on_cpu["logit_rel_diff"] < 1e-5 < on_gpu["logit_rel_diff"] < 1e-2
    assert on_gpu["device_accuracy"] is not None and on_gpu["agreement"] == 1.0
    assert on_cpu["latency_p50_ms"] > 0
    if "llvmpipe" in gpu:
        assert on_gpu["latency_p50_ms"] is None and on_gpu["latency_p50_ci_ms"] is None
        timed = set(pq.read_table("out/latencies.parquet")["artifact"].to_pylist())
        assert timed == {"student", "tflite-fp32"}

"""A stand-in of LiteRT's benchmark_model that runs the model for real: the raw rows are what the model takes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import Split
from pocketbert.devices.benchmark import benchmark_artifacts
from pocketbert.devices.links.local import LocalLink
from pocketbert.params import BenchmarkParams
from tests.runtimes.conftest import LENGTH

# Binds by the order of the inputs, as the real one does.
STAND_IN = """#!{python}
import pathlib, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
interpreter = Interpreter(model_path=flags["graph"], num_threads=int(flags["num_threads"]))
interpreter.allocate_tensors()
for detail, item in zip(interpreter.get_input_details(), flags["input_layer_value_files"].split(","), strict=True):
    raw = np.frombuffer(pathlib.Path(item.split(":")[1]).read_bytes(), dtype=detail["dtype"])
    interpreter.set_tensor(detail["index"], raw.reshape(detail["shape"]))
interpreter.invoke()
pathlib.Path("output").write_bytes(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tobytes())
print(f"count={flags['num_runs']} first=9 curr=9 min=1 max=9 avg=5000 std=1 p5=1 median=4000 p95=9")
print("Inference timings in us: Init: 1, First inference: 9, Warmup (avg): 5, Inference (avg): 5000")
"""


def test_a_row_by_benchmark_model_is_proven(
    student: Artifact, tflite: Artifact, toy_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("benchmark_model").write_text(STAND_IN.replace("{python}", sys.executable), encoding="utf-8")
    command = ["{file:tool}", "--graph={model}", "--num_threads={threads}", "--num_runs={runs}"]
    runner = {"files": {"tool": "benchmark_model"}, "command": command, "answer": "benchmark_model"}
    phone = {"kind": "adb", "serial": "x", "python": None, "work": f"{tmp_path}/work", "runner": runner}
    Path("devices.yaml").write_text(json.dumps({"devices": {"phone": phone}}), encoding="utf-8")
    params = BenchmarkParams(runs=20, rounds=1, warmup=1, sequence_length=LENGTH, proof_rows=3, accuracy_rows=4)
    rows = Split(toy_split.texts[::7], toy_split.targets[::7])
    benchmark_artifacts(params, "phone", [student, tflite], rows, tmp_path / "results", LocalLink())
    row = json.loads(Path("results/benchmark.json").read_text(encoding="utf-8"))["rows"][1]
    assert (row["error"], row["latency_p50_ms"], row["runs"]) == (None, 4.0, 20)
    assert row["logit_rel_diff"] < 1e-4
    assert row["device_accuracy_rows"] == 4
    # Not told, and not made up.
    unknown = ("latency_p50_ci_ms", "latency_p90_ms", "latency_p99_ms", "cpu_percent", "memory_peak_bytes")
    assert [row[key] for key in unknown] == [None] * 5
    assert np.isfinite(row["device_accuracy"])

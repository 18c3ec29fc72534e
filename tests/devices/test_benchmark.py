import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_format
import pyarrow.parquet as pq
import pytest

from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import Split
from pocketbert.devices.benchmark import benchmark_artifacts
from pocketbert.devices.follow import Patience
from pocketbert.devices.inventory import LocalParams
from pocketbert.devices.links.base import Link, LinkLost
from pocketbert.devices.links.fake import FakeLink, Fault
from pocketbert.devices.links.local import LocalLink
from pocketbert.devices.rows import prove
from pocketbert.devices.targets import choose_targets
from pocketbert.errors import DeviceError, ParamsError
from pocketbert.params import BenchmarkParams
from tests.devices.conftest import LENGTH, toy_targets, toy_texts

PARAMS = BenchmarkParams(
    runs=11, rounds=2, warmup=1, sequence_length=LENGTH, proof_rows=12, accuracy_rows=20, timeout_s=60
)
SPLIT = Split(toy_texts(), np.array(toy_targets()))


def run(artifacts: list[Artifact], folder: Path, params: BenchmarkParams = PARAMS) -> dict[str, Any]:
    benchmark_artifacts(params, "local", artifacts, SPLIT, folder)
    return json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))


def tampered(source: Artifact, folder: Path, name: str) -> Artifact:
    """A copy of an artifact under another name, for planting a fault."""
    shutil.copytree(source.folder, folder)
    card = source.card.model_copy(update={"name": name})
    (folder / "artifact.json").write_text(card.model_dump_json(), encoding="utf-8")
    return Artifact(folder=folder, card=card)


def scale_initializers(artifact: Artifact, factor: float) -> None:
    model = onnx_format.load(artifact.model_path)
    for tensor in model.graph.initializer:
        values = onnx_format.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim == 2:
            tensor.CopyFrom(onnx_format.numpy_helper.from_array(values * np.float32(factor), tensor.name))
    onnx_format.save(model, artifact.model_path)


@pytest.fixture(scope="module")
def measured(
    teacher: Artifact, student: Artifact, onnx: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """One run over sound and faulty artifacts: NaN, another model, a truncated file."""
    base = tmp_path_factory.mktemp("benchmark")
    nan = tampered(onnx, base / "nan", "onnx-nan")
    scale_initializers(nan, float("nan"))
    other = tampered(onnx, base / "other", "onnx-other")
    scale_initializers(other, -1.0)
    cut = tampered(onnx, base / "cut", "onnx-cut")
    cut.model_path.write_bytes(cut.model_path.read_bytes()[:1000])
    (base / "devices.yaml").write_text("devices:\n  local: {kind: local}\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        return base / "results", run([teacher, student, onnx, nan, other, cut], base / "results")


def rows_of(measured: tuple[Path, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["artifact"]: row for row in measured[1]["rows"]}


def test_a_sound_row_holds_every_figure(measured: tuple[Path, dict[str, Any]], onnx: Artifact) -> None:
    row = rows_of(measured)["onnx-fp32"]
    assert row["error"] is None
    assert row["md5"] == onnx.md5()
    assert row["size_bytes"] == onnx.model_path.stat().st_size
    assert row["runtime"].startswith("onnxruntime")
    assert (row["accelerator"], row["threads"], row["sequence_length"], row["runs"]) == ("cpu", 1, LENGTH, 11)
    low, high = row["latency_p50_ci_ms"]
    assert 0 < low <= row["latency_p50_ms"] <= high
    assert row["latency_p50_ms"] <= row["latency_p90_ms"]
    assert 0 < row["memory_baseline_bytes"] < row["memory_peak_bytes"]
    assert row["cpu_percent"] > 0
    assert 0 <= row["logit_max_abs_diff"] < 1e-3
    assert row["agreement"] == 1.0
    assert (row["rounds"], row["device_accuracy_rows"]) == (2, 20)
    assert row["device_accuracy"] > 0.9
    assert row["latency_p90_ms"] <= row["latency_p99_ms"]
    assert 0 < row["memory_pss_bytes"] <= row["memory_peak_bytes"]


def test_the_worker_of_a_converted_model_imports_no_torch(measured: tuple[Path, dict[str, Any]]) -> None:
    rows = rows_of(measured)
    assert rows["onnx-fp32"]["memory_peak_bytes"] < rows["student"]["memory_peak_bytes"] - 50e6


def test_a_torch_model_is_a_source_and_has_no_difference(measured: tuple[Path, dict[str, Any]]) -> None:
    for name in ("teacher", "student"):
        assert rows_of(measured)[name]["error"] is None
        assert rows_of(measured)[name]["latency_p50_ms"] > 0
        assert rows_of(measured)[name]["logit_max_abs_diff"] is None


@pytest.mark.parametrize(
    ("name", "words"), [("onnx-nan", "NaN"), ("onnx-other", "agrees with torch"), ("onnx-cut", "not a whole ONNX")]
)
def test_a_broken_artifact_costs_its_own_row_only(measured: tuple[Path, dict[str, Any]], name: str, words: str) -> None:
    row = rows_of(measured)[name]
    assert words in row["error"]
    for figure in ("latency_p50_ms", "latency_p90_ms", "memory_peak_bytes", "cpu_percent", "logit_max_abs_diff"):
        assert row[figure] is None


def test_raw_latencies_are_kept_for_valid_rows(measured: tuple[Path, dict[str, Any]]) -> None:
    table = pq.read_table(measured[0] / "latencies.parquet").to_pandas()
    assert set(table["artifact"]) == {"teacher", "student", "onnx-fp32"}
    assert table.groupby("artifact").size().eq(11).all()
    assert set(table["round"]) == {0, 1}
    own = table[table["artifact"] == "onnx-fp32"]["latency_ms"]
    assert float(np.median(own)) == pytest.approx(rows_of(measured)["onnx-fp32"]["latency_p50_ms"])


def test_host_facts_and_harness(measured: tuple[Path, dict[str, Any]]) -> None:
    document = measured[1]
    assert document["device"]["name"] == document["device"]["kind"] == "local"
    assert document["device"]["cores"] >= 1
    assert document["device"]["memory_total_bytes"] > 1e8
    assert document["harness"]["version"] >= 1


def test_a_hanging_worker_costs_its_row(project: Path, student: Artifact, teacher: Artifact) -> None:
    params = PARAMS.model_copy(update={"timeout_s": 1})
    # Runs for many seconds once it has started.
    slow = params.model_copy(update={"runs": 200_000, "rounds": 1})
    with pytest.raises(DeviceError, match=r"no artifact could be measured on local: .*within 1 s"):
        run([student], project / "results", slow)


def test_without_the_student_nothing_converted_is_proven(project: Path, teacher: Artifact, onnx: Artifact) -> None:
    document = run([teacher, onnx], project / "results", PARAMS.model_copy(update={"rounds": 1}))
    errors = {row["artifact"]: row["error"] for row in document["rows"]}
    assert errors["teacher"] is None
    assert "no logits to compare with" in errors["onnx-fp32"]


def test_a_static_length_other_than_the_benchmarks(project: Path, student: Artifact) -> None:
    card = student.card.model_copy(update={"sequence_length": 32})
    with pytest.raises(ParamsError, match=r"benchmark\.sequence_length is 16, but student was built for 32"):
        run([Artifact(folder=student.folder, card=card)], project / "results")


def test_more_tokens_than_the_model_has_positions(project: Path, student: Artifact) -> None:
    with pytest.raises(DeviceError, match="no artifact could be measured on local: the worker failed"):
        run([student], project / "results", PARAMS.model_copy(update={"sequence_length": 128}))


def test_no_texts(project: Path, student: Artifact) -> None:
    with pytest.raises(DeviceError, match="no rows"):
        benchmark_artifacts(PARAMS, "local", [student], Split([], np.array([], dtype=np.int64)), project / "results")


def test_agreement_of_a_multi_label_task_is_that_of_whole_rows() -> None:
    reference = np.array([[2.0, -1.0, 1.0], [-2.0, 3.0, -1.0], [1.0, 2.0, -3.0], [-1.0, -2.0, 2.0]], np.float32)
    # The second label of the first row is lost; no arg max changes.
    candidate = reference.copy()
    candidate[0, 2] = -0.5
    assert prove(reference, [candidate]).agreement == 1.0
    assert prove(reference, [candidate], multi_label=True).agreement == 0.75


RUNNER = """#!{python}
import json, sys
import numpy as np, onnxruntime
model, inputs, rows, runs, table = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) or 30, sys.argv[5]
session = onnxruntime.InferenceSession(model)
names = [spec.name for spec in session.get_inputs()]
with np.load(inputs) as file:
    logits = [session.run(None, {n: file[n][i:i+1].astype("int64") for n in names})[0][0].tolist() for i in range(rows)]
assert open(table).read() == "a table"
print(json.dumps({"runtime": "own 1", "latencies_ms": [1.0] * runs, "logits": logits, "memory_peak_bytes": 12345678}))
"""
# A board whose key and host key nobody looks at: its link is a stand-in.
BOARD = """
devices:
  board:
    kind: ssh
    address: board.example
    user: me
    key: /none
    host_key: "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
    work: {work}
    python: {python}
    environment: own
"""


def on_board(project: Path, link: Link, artifacts: list[Artifact], extra: str = "") -> dict[str, Any]:
    text = BOARD.format(work=json.dumps(str(project / "a board")), python=sys.executable) + extra
    (project / "devices.yaml").write_text(text, encoding="utf-8")
    metrics = benchmark_artifacts(PARAMS, "board", artifacts, SPLIT, project / "results", link)
    return {**json.loads((project / "results" / "benchmark.json").read_text(encoding="utf-8")), "metrics": metrics}


def test_a_board_s_logits_are_proven_against_the_student_s_here(
    project: Path, student: Artifact, onnx: Artifact
) -> None:
    extra = "    benchmark: {runs: 10, rounds: 1, sustained: {seconds: 1, artifacts: [onnx-*]}}\n"
    document = on_board(project, LocalLink(), [student, onnx], extra)
    rows = {row["artifact"]: row for row in document["rows"]}
    assert "measured on this machine only" in rows["student"]["error"]
    row = rows["onnx-fp32"]
    assert (row["error"], row["runs"], row["agreement"]) == (None, 10, 1.0)
    assert row["logit_max_abs_diff"] < 1e-3
    assert row["sustained_s"] >= 1
    assert abs(row["sustained_drift"]) < 5
    assert document["device"]["kind"] == "ssh"
    assert document["telemetry_sources"]["memory"] == "proc/PID/status"


def test_a_program_of_the_user_s_measures(project: Path, student: Artifact, onnx: Artifact) -> None:
    (project / "run it.py").write_text(RUNNER.replace("{python}", sys.executable), encoding="utf-8")
    (project / "table").write_text("a table", encoding="utf-8")
    words = ["{file:program}", "{model}", "{inputs}", "{rows}", "{runs}", "{file:table}"]
    runner = (
        f"    runner: {{command: {json.dumps(words)}, formats: [onnx],"
        f" files: {{program: {json.dumps(str(project / 'run it.py'))}, table: table}}}}\n"
    )
    document = on_board(project, LocalLink(), [student, onnx], runner)
    row = document["rows"][1]
    assert (row["error"], row["runtime"], row["latency_p50_ms"], row["agreement"]) == (None, "own 1", 1.0, 1.0)
    assert row["memory_peak_bytes"] == 12345678


def test_a_device_that_is_down_says_so_in_its_rows(
    project: Path, student: Artifact, onnx: Artifact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pocketbert.devices.benchmark._REMOTE_PATIENCE", Patience(connect_s=0.1))
    down = FakeLink(faults=[Fault("connect", 1, LinkLost("board does not answer", "Is it switched on?"), times=99)])
    document = on_board(project, down, [student, onnx])
    assert "board does not answer" in document["rows"][1]["error"]
    assert "board does not answer" in document["device"]["error"]
    # DVC will not say that there is something left to do.
    assert "pocketbert devices retry" in document["device"]["error"]
    assert "pocketbert devices retry" in caplog.text
    assert document["device"]["processor"] is None
    assert document["metrics"]["failed_rows"] == 1
    assert document["rows"][1]["latency_p50_ms"] is None
    assert (project / "results" / "latencies.parquet").is_file()


def test_what_was_measured_before_a_device_died_is_no_row(project: Path, student: Artifact, onnx: Artifact) -> None:
    # A quick machine has measured all by the second look at its records.
    dies = Fault("read", 2, DeviceError("the board died", "Look at it."), times=999)
    document = on_board(project, FakeLink(LocalLink(), faults=[dies]), [student, onnx])
    assert "the board died" in document["rows"][1]["error"]


def test_the_processor_and_the_gpu_of_a_device_have_rows_of_their_own(student: Artifact, tmp_path: Path) -> None:
    card = student.card.model_copy(update={"name": "tflite-fp32", "format": "tflite"})
    device = LocalParams.model_validate({"kind": "local", "gpu": {"driver": "vulkan", "precisions": ["fp16", "fp32"]}})
    targets = choose_targets([student, Artifact(folder=student.folder, card=card)], device)
    assert [t.key for t in targets] == ["student", "tflite-fp32", "tflite-fp32@gpu-fp16", "tflite-fp32@gpu-fp32"]
    assert {t.engine for t in targets if t.accelerator == "gpu"} == {"litert"}
    assert not any(t.refusal for t in targets)


def test_a_gpu_that_litert_does_not_reach_is_left_to_a_runner(student: Artifact) -> None:
    card = student.card.model_copy(update={"name": "tflite-fp32", "format": "tflite"})
    device = LocalParams.model_validate({"kind": "local", "gpu": {"driver": "opencl"}})
    processor, gpu = choose_targets([Artifact(folder=student.folder, card=card)], device)
    assert processor.refusal is None
    assert "through OpenCL it is measured by a `runner`" in str(gpu.refusal)

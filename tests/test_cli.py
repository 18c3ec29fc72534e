"""The command line as a user runs it: in a process of its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pocketbert.artifacts import Artifact
from tests.runtimes.conftest import copy_artifact, onnx, student, tflite

__all__ = ["onnx", "student", "tflite"]
POCKETBERT = str(Path(sys.executable).with_name("pocketbert"))
ROOT = Path(__file__).parent.parent


def pocketbert(*arguments: str | Path, cwd: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    done = subprocess.run([POCKETBERT, *map(str, arguments)], cwd=cwd, input=stdin, capture_output=True, timeout=120)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def error_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line that a failed command prints."""
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("INFO:")]
    assert line.startswith("error: ")
    return line


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['pocketbert', '--help']; import pocketbert.cli as cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'tensorflow', 'transformers', 'pandas', 'mlflow', 'sklearn', 'numpy', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "predict" in done.stdout
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("name", ["student", "onnx", "tflite"])
def test_predict_prints_label_probability_and_milliseconds(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    artifact: Artifact = request.getfixturevalue(name)
    done = pocketbert(
        "predict", "--model", artifact.folder, "--text", "a small apple", "--text", "the old saw", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0].strip() for row in rows] == ["fruit", "tool"]
    for _, probability, timing in rows:
        assert 0.5 < float(probability) <= 1
        assert timing.endswith(" ms")
        assert float(timing.removesuffix(" ms")) > 0


def test_predict_reads_lines_and_prints_json(onnx: Artifact, tmp_path: Path) -> None:
    stdin = "\ufeffthe red apple\n\n  \nthe cat \u732b\r\na cheap drill".encode()
    done = pocketbert("predict", "--model", onnx.folder, "--json", "--top-k", "2", cwd=tmp_path, stdin=stdin)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in found] == ["the red apple", "the cat \u732b", "a cheap drill"]
    assert [found[row]["labels"][0]["label"] for row in (0, 2)] == ["fruit", "tool"]
    assert all(len(row["labels"]) == 2 and row["run_ms"] > 0 for row in found)


def test_predict_marks_a_multi_label_text_without_labels(onnx: Artifact, tmp_path: Path) -> None:
    several = copy_artifact(onnx, tmp_path / "several", "multi_label")
    texts = [word for text in ("apple", "red", "the", "red the", "cat hammer", "") for word in ("--text", text)]
    plain = pocketbert("predict", "--model", several.folder, *texts, cwd=tmp_path)
    machine = pocketbert("predict", "--model", several.folder, "--json", *texts, cwd=tmp_path)
    shown = [line.split("\t")[0].strip() for line in plain.stdout.splitlines()]
    expected = [
        name
        for line in machine.stdout.splitlines()
        for name in [entry["label"] for entry in json.loads(line)["labels"]] or ["-"]
    ]
    assert shown == expected


def test_predict_without_a_model_names_dvc_repro(tmp_path: Path) -> None:
    done = pocketbert("predict", "--text", "apple", cwd=tmp_path)
    assert "models/quantized/tflite-dynamic_wi8_afp32 holds no model. Run `dvc repro`" in error_line(done, 2)


def test_predict_names_the_line_that_is_not_utf8(onnx: Artifact, tmp_path: Path) -> None:
    done = pocketbert("predict", "--model", onnx.folder, cwd=tmp_path, stdin=b"caf\xe9\n")
    assert "line 1 of standard input is not UTF-8 (byte 0xe9). Convert it first" in error_line(done, 3)


def test_predict_names_a_damaged_model(tflite: Artifact, tmp_path: Path) -> None:
    broken = copy_artifact(tflite, tmp_path / "broken")
    broken.model_path.write_bytes(broken.model_path.read_bytes()[:2000])
    done = pocketbert("predict", "--model", broken.folder, "--text", "apple", cwd=tmp_path)
    assert "broken/model.tflite cannot be loaded" in error_line(done, 9)


def test_params_merge_and_check(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "quick.yaml").write_text("distill: {epochs: 2}\n")
    assert pocketbert("params", "merge", "quick.yaml", cwd=tmp_path).returncode == 0
    assert "epochs: 2" in (tmp_path / "params.yaml").read_text()
    assert pocketbert("params", "check", cwd=tmp_path).stdout == "params.yaml is valid\n"


def test_params_check_names_a_misspelt_recipe(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("quantize: {recipes: {v: {format: tflite, recipe: static_wi8}}}\n")
    assert "Did you mean 'static_wi8_ai8'?" in error_line(pocketbert("params", "check", cwd=tmp_path), 2)


def test_params_outside_a_project_says_so(tmp_path: Path) -> None:
    done = pocketbert("params", "check", cwd=tmp_path)
    assert "params.yaml does not exist here. Run from the root of the project." in error_line(done, 2)


def test_results_shows_the_table_and_the_paths(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("publish: {experiment: x}\n")
    (tmp_path / "report").mkdir()
    (tmp_path / "report/results.csv").write_text(
        "artifact,device,threads,size_bytes,accuracy,accuracy_drop,macro_f1,logit_rel_diff,latency_p50_ms,"
        "latency_p90_ms,memory_peak_bytes\n"
        "teacher,local,1,90900000,0.9641,0.0,0.96,,41.234,43.0,\n"
        "tflite-dynamic_wi8_afp32,local,1,18017872,0.9587,0.54,0.95,0.1451,4.97,5.2,60000000\n"
    )
    done = pocketbert("results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tflite-dynamic_wi8_afp32" in done.stdout
    line = next(line for line in done.stdout.splitlines() if "teacher" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == [
        "teacher", "local", "1", "90.9", "0.9641", "+0.00", "0.9600", "", "41.23", "43.00", "",
    ]  # fmt: skip
    assert "report/index.html" in done.stdout
    assert f"sqlite:///{tmp_path}/mlflow.db" in done.stdout


def test_results_hides_the_password_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text("{}\n")
    (tmp_path / "report").mkdir()
    (tmp_path / "report/results.csv").write_text("artifact,device\nteacher,local\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:hunter2@mlflow.example")
    done = pocketbert("results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mlflow.example" in done.stdout
    assert "hunter2" not in done.stdout


def test_results_before_the_pipeline_names_dvc_repro(tmp_path: Path) -> None:
    assert "report/results.csv does not exist. Run `dvc repro`" in error_line(pocketbert("results", cwd=tmp_path), 2)


def test_inspect_names_the_operator_that_the_runtime_is_too_old_for(tflite: Artifact, tmp_path: Path) -> None:
    done = pocketbert("inspect", tflite.folder, "--runtime", "2.8", cwd=tmp_path)
    assert done.returncode == 1
    assert "FINDING: runtime 2.8 is too old for GELU v1: needs 2.9" in done.stdout
    machine = pocketbert("inspect", tflite.folder, "--runtime", "2.13", "--json", cwd=tmp_path)
    assert machine.returncode == 0, machine.stderr
    assert json.loads(machine.stdout)["lowest_runtime"] == "2.9"


def test_compare_ends_in_7_beyond_the_limit(student: Artifact, onnx: Artifact, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text\na red apple\nthe cheap hammer\nnew cat\nold small dog\n")
    command = ["compare", student.folder, onnx.folder, "--data", "rows.csv"]
    assert pocketbert(*command, "--limit", "1e-4", cwd=tmp_path).returncode == 0
    done = pocketbert(*command, "--limit", "0", "--json", cwd=tmp_path)
    assert done.returncode == 7
    assert "over the limit of 0" in done.stderr.splitlines()[-1]
    assert json.loads(done.stdout)["logits"]["agreement"] == 1.0

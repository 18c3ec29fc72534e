import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import CheckpointError, DeviceError
from pocketbert.numerics.logits import compare_logits
from pocketbert.runtimes.engines import open_runtime
from pocketbert.runtimes.rows import run_texts
from tests.runtimes.conftest import LENGTH, copy_artifact


def logits_of(artifact: Artifact, texts: list[str]) -> np.ndarray:
    runtime = open_runtime(artifact)
    try:
        return run_texts(artifact, runtime, texts, LENGTH)
    finally:
        runtime.close()


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_float_exports_give_the_logits_of_torch(
    name: str, student: Artifact, toy_split: Split, request: pytest.FixtureRequest
) -> None:
    exported: Artifact = request.getfixturevalue(name)
    texts = toy_split.texts[::7]
    compared = compare_logits(logits_of(student, texts), logits_of(exported, texts))
    assert compared.max_rel_diff < 1e-4
    assert compared.agreement == 1.0


def test_every_artifact_runs_from_its_folder_and_binds_by_name(every_artifact: list[Artifact]) -> None:
    rows = TextEncoder(every_artifact[0].folder).encode(["a red apple", "the hammer"], LENGTH)
    swapped = dict(reversed(rows.items())) | {"unknown": rows["input_ids"]}
    for artifact in every_artifact:
        runtime = open_runtime(artifact.folder)
        assert {spec.name for spec in runtime.inputs} == set(rows)
        logits = runtime.run(rows)
        assert logits.dtype == np.float32
        assert logits.shape == (2, 3)
        np.testing.assert_array_equal(logits, runtime.run(swapped))
        runtime.close()


def test_a_fully_padded_row_gives_the_same_finite_logits_everywhere(every_artifact: list[Artifact]) -> None:
    encoder = TextEncoder(every_artifact[0].folder)
    rows = encoder.encode(["a red apple", "the hammer"], LENGTH)
    for values in rows.values():
        values[1] = 0
    expected = open_runtime(every_artifact[1]).run(rows)
    for artifact in every_artifact:
        logits = open_runtime(artifact).run(rows)
        assert np.isfinite(logits).all(), artifact.name
        assert np.abs(logits - expected).max() < 0.15 * np.abs(expected).max(), artifact.name


def test_litert_refuses_a_row_longer_than_its_static_length(tflite: Artifact) -> None:
    rows = TextEncoder(tflite.folder).encode(["a"], 64, pad_to=LENGTH + 1)
    with pytest.raises(DeviceError, match="rows of 17 tokens for a model of static length 16"):
        open_runtime(tflite).run(rows)


@pytest.mark.parametrize("name", ["student", "onnx", "tflite"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_truncated_model_file_is_named(
    name: str, kept: float, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    broken = copy_artifact(request.getfixturevalue(name), tmp_path / "broken")
    content = broken.model_path.read_bytes()
    broken.model_path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises((DeviceError, CheckpointError), match="broken") as caught:
        open_runtime(broken)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_a_file_of_noise_is_named(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    broken = copy_artifact(request.getfixturevalue(name), tmp_path / "broken")
    broken.model_path.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(DeviceError, match=r"broken/model\.(onnx|tflite) cannot be loaded"):
        open_runtime(broken)


def test_a_folder_that_is_no_artifact_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a pocketbert artifact"):
        open_runtime(tmp_path)


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_light_engines_do_not_import_heavy_ones(name: str, request: pytest.FixtureRequest) -> None:
    artifact: Artifact = request.getfixturevalue(name)
    script = (
        "import sys; from pathlib import Path; from pocketbert.runtimes.engines import open_runtime;"
        f"open_runtime(Path({str(artifact.folder)!r}));"
        "print(sorted({'torch', 'tensorflow', 'transformers', 'pandas', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

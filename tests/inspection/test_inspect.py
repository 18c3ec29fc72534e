import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_format
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketbert.artifacts import Artifact
from pocketbert.errors import CheckpointError, ParamsError, PocketBertError
from pocketbert.inspection.inspect import inspect_file
from pocketbert.inspection.text import as_text
from tests.inspection.conftest import Edit, rename_op
from tests.runtimes.conftest import LENGTH

VOCABULARY = 25
FORMATS = ["student", "onnx", "tflite"]


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_model_in_three_formats(name: str, request: pytest.FixtureRequest) -> None:
    artifact: Artifact = request.getfixturevalue(name)
    inspection = inspect_file(artifact.folder)
    assert inspection.fine
    assert sorted(spec.name.split(":")[0].removeprefix("serving_default_") for spec in inspection.model.inputs) == [
        "attention_mask", "input_ids", "token_type_ids",
    ]  # fmt: skip
    sizes = inspection.bytes_by_part
    # 25 ids, 2 types, positions (16 of them in the static file) of width 32, the norm of the embeddings (without its
    # shift in the static file, where a fusion has moved it into the biases behind it).
    norm = 1 if name == "tflite" else 2
    positions = LENGTH if name == "tflite" else 64
    # ONNX keeps the 64 position ids too, as int64.
    ids = 8 * 64 if name == "onnx" else 0
    assert sizes["embeddings"] == pytest.approx(4 * 32 * (25 + 2 + positions + norm) + ids, abs=64)
    # Two linear layers: 32 x 32 and 32 x 3, with biases.
    assert sizes["head"] == pytest.approx(4 * (32 * 32 + 32 + 32 * 3 + 3), abs=64)
    assert sizes["encoder"] == pytest.approx(4 * 2 * (4 * (32 * 32 + 32) + 2 * 32 * 64 + 96 + 4 * 32), abs=600)
    assert next(iter(inspection.bytes_by_dtype)) == "float32"
    by_index = {
        (lookup.index or "").split(":")[0].removeprefix("serving_default_"): lookup for lookup in inspection.lookups
    }
    assert by_index["input_ids"].rows == inspection.vocabulary == VOCABULARY
    assert by_index["token_type_ids"].rows == 2
    assert json.loads(json.dumps(inspection.as_dict()))["format"] == artifact.card.format


def test_a_bare_file_knows_no_vocabulary(tflite: Artifact, tmp_path: Path) -> None:
    bare = Path(shutil.copy(tflite.model_path, tmp_path / "bare.tflite"))
    assert [lookup.verdict for lookup in inspect_file(bare).lookups] == ["unknown", "ok"]
    assert not inspect_file(bare).out_of_bounds


@pytest.mark.parametrize("name", FORMATS)
def test_ids_beyond_the_table_are_named(name: str, request: pytest.FixtureRequest) -> None:
    artifact: Artifact = request.getfixturevalue(name)
    assert inspect_file(artifact.folder, vocabulary=VOCABULARY).fine
    broken = inspect_file(artifact.folder, vocabulary=VOCABULARY + 1)
    assert [lookup.rows for lookup in broken.out_of_bounds] == [VOCABULARY]
    assert f"ids up to {VOCABULARY}, the table ends at {VOCABULARY - 1}" in as_text(broken)


def test_a_clipped_index_is_safe(onnx: Artifact, tmp_path: Path) -> None:
    model = onnx_format.load(onnx.model_path)
    gather = next(n for n in model.graph.node if n.op_type == "Gather" and "input_ids" in n.input)
    top = onnx_format.numpy_helper.from_array(np.array(VOCABULARY - 1, dtype=np.int64), "top")
    model.graph.initializer.append(top)
    model.graph.node.insert(0, onnx_format.helper.make_node("Min", ["input_ids", "top"], ["bounded"]))
    gather.input[1] = "bounded"
    onnx_format.save(model, tmp_path / "guarded.onnx")
    inspection = inspect_file(tmp_path / "guarded.onnx", vocabulary=1000)
    assert [lookup.index for lookup in inspection.lookups if lookup.guarded] == ["input_ids"]
    assert inspection.fine


def test_the_runtime_that_is_too_old_is_told_by_the_operator(tflite: Artifact) -> None:
    inspection = inspect_file(tflite.folder, runtime="2.8")
    # The converter writes the answer of TensorFlow's own table into the file.
    assert inspection.model.facts["min_runtime_version"].startswith(f"{inspection.lowest_runtime}.")
    assert {need.use.op for need in inspection.refused} == {"GELU"}
    assert "runtime 2.8 is too old for GELU v1: needs 2.9" in as_text(inspection)
    assert inspect_file(tflite.folder, runtime="2.13").fine


def test_a_custom_op_is_named(edited: Edit) -> None:
    path = edited(lambda model: rename_op(model, "GELU", custom="FancyGelu"))
    inspection = inspect_file(path, runtime="2.13")
    assert [need.use.op for need in inspection.refused] == ["FancyGelu"]
    assert "custom op FancyGelu (2 times)" in as_text(inspect_file(path))


def test_an_operator_version_of_the_future_is_unknown(edited: Edit) -> None:
    path = edited(lambda model: rename_op(model, "FULLY_CONNECTED", version=99))
    inspection = inspect_file(path, runtime="2.20")
    assert inspection.fine
    assert "UNKNOWN: FULLY_CONNECTED v99 on runtime 2.20" in as_text(inspection)


def test_a_file_without_signatures_says_so(edited: Edit) -> None:
    def strip(model: Any) -> None:
        model.signatureDefs = None

    assert "signatures: none" in as_text(inspect_file(edited(strip)))


def test_a_custom_op_of_onnx_is_named(onnx: Artifact, tmp_path: Path) -> None:
    model = onnx_format.load(onnx.model_path)
    next(n for n in model.graph.node if n.op_type == "Softmax").domain = "com.example"
    onnx_format.save(model, tmp_path / "custom.onnx")
    assert "custom op com.example.Softmax (1 times)" in as_text(inspect_file(tmp_path / "custom.onnx"))


def test_external_data_counts_and_must_be_there(onnx: Artifact, tmp_path: Path) -> None:
    path, weights = tmp_path / "model.onnx", tmp_path / "weights.bin"
    model = onnx_format.load(onnx.model_path)
    onnx_format.save(model, path, save_as_external_data=True, location=weights.name, size_threshold=256)
    inspection = inspect_file(path)
    assert inspection.model.size_bytes == path.stat().st_size + weights.stat().st_size
    assert inspection.bytes_by_part == inspect_file(onnx.model_path).bytes_by_part
    content = weights.read_bytes()
    weights.write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match=r"weights.bin is cut short"):
        inspect_file(path)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"keeps its weights in 'weights.bin', which is not beside it"):
        inspect_file(path)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_a_file_cut_short_is_one_clear_error(
    name: str, share: float, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    artifact: Artifact = request.getfixturevalue(name)
    folder = tmp_path / name
    shutil.copytree(artifact.folder, folder, dirs_exist_ok=True)
    content = artifact.model_path.read_bytes()
    (folder / artifact.card.model_file).write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=artifact.card.model_file):
        inspect_file(folder)


@pytest.mark.parametrize("name", ["onnx", "tflite"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), min_size=1, max_size=8))
def test_flipped_bytes_never_end_in_a_traceback(
    name: str, flips: list[tuple[float, int]], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    artifact: Artifact = request.getfixturevalue(name)
    content = bytearray(artifact.model_path.read_bytes())
    for share, value in flips:
        content[int(share * len(content))] ^= value
    path = tmp_path / artifact.card.model_file
    path.write_bytes(content)
    try:
        as_text(inspect_file(path, vocabulary=VOCABULARY))
    except PocketBertError as error:
        assert artifact.card.model_file in str(error)


def test_what_is_no_model_is_named(tmp_path: Path, student: Artifact) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty.tflite").write_bytes(b"")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, message in {
        "absent.onnx": "does not exist",
        "notes.txt": "is no model file",
        "empty.tflite": "is empty",
        "empty.onnx": "a graph is missing",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            inspect_file(tmp_path / name)
    with pytest.raises(ParamsError, match="--runtime is that of TFLite or ONNX Runtime"):
        inspect_file(student.folder, runtime="2.13")

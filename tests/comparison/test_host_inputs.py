"""Files of export_tflite's profile `embeddings`, which read floats: compared with any other file on the same rows."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from pocketbert.artifacts import Artifact
from pocketbert.comparison.compare import compare_files
from pocketbert.comparison.host_inputs import host_inputs
from pocketbert.errors import DeviceError, ProofError
from pocketbert.export.tflite import export_tflite
from pocketbert.params import ExportTfliteParams
from pocketbert.runtimes.base import TensorSpec
from pocketbert.runtimes.engines import open_runtime
from pocketbert.runtimes.host_lookup import HostLookup


@pytest.fixture(scope="module")
def hosted(student: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hosted") / "tflite"
    export_tflite(ExportTfliteParams(sequence_length=16, profile="embeddings"), student.folder, folder)
    return folder


def test_its_embeddings_are_looked_up_in_the_tables_beside_it(student: Artifact, hosted: Path, rows_csv: Path) -> None:
    for a, b in ((student.folder, hosted), (hosted / "model.tflite", student.folder)):
        comparison = compare_files(a, b, rows_csv, rows=12, layers=True)
        comparison.check(1e-4)
        assert "holes" in comparison.hard_rows and "segments" in comparison.hard_rows
        assert any("looked up in the tables beside it" in line for line in comparison.said)
        assert comparison.layers is not None and comparison.layers.first_divergence is None


def test_without_its_tables_it_says_which_files_are_missing(student: Artifact, hosted: Path, rows_csv: Path) -> None:
    alone = shutil.copytree(hosted, hosted.parent / "alone")
    (alone / "host_embeddings.npy").unlink()
    with pytest.raises(ProofError, match=r"reads 'embeddings'.* host_embeddings.npy is not beside it"):
        compare_files(student.folder, alone, rows_csv, rows=12)
    runtime = open_runtime(alone)
    rows = {name: np.ones((1, 4), np.int32) for name in ("input_ids", "attention_mask", "token_type_ids")}
    with pytest.raises(DeviceError, match="reads 'embeddings', which the rows do not have"):
        runtime.run(rows)


def test_words_and_positions_may_be_read_apart(tmp_path: Path) -> None:
    """MobileBERT projects the words before it adds the positions."""
    random = np.random.default_rng(0)
    words, positions = (random.normal(size=shape).astype(np.float32) for shape in ((9, 3), (2, 4, 5)))
    HostLookup(words, positions).write(tmp_path)
    inputs = (
        TensorSpec("position_embeddings", "float32", (1, 4, 5)),
        TensorSpec("attention_mask", "float32", (1, 4)),
        TensorSpec("word_embeddings", "float32", (1, 4, 3)),
    )
    found = host_inputs(tmp_path / "model.tflite", inputs)
    assert found is not None
    assert [spec.name for spec in found.inputs] == ["input_ids", "token_type_ids", "attention_mask"]
    ids, types, mask = np.array([[8, 1, 2, 0]]), np.array([[0, 1, 1, 0]]), np.ones((1, 4), np.float32)
    placed, kept, looked_up = found.look_up([ids, types, mask])
    assert np.array_equal(looked_up, words[ids])
    assert np.array_equal(placed[0], positions[types[0], np.arange(4)])
    assert kept is mask


def test_other_files_are_left_alone() -> None:
    assert host_inputs(Path("model.tflite"), (TensorSpec("input_ids", "int32", (1, 4)),)) is None

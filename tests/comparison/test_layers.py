import json
from pathlib import Path

import onnx as onnx_format
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from pocketbert.artifacts import Artifact
from pocketbert.cli import app
from pocketbert.comparison.compare import Comparison, compare_files
from pocketbert.comparison.text import as_text
from pocketbert.errors import ProofError
from tests.comparison.conftest import bag_onnx
from tests.runtimes.conftest import copy_artifact


def compare(a: Path, b: Path, data: Path, tokenizer: Path | None = None) -> Comparison:
    return compare_files(a, b, data, rows=6, tokenizer=tokenizer, layers=True)


def test_any_two_formats_are_compared_layer_by_layer(
    student: Artifact, onnx: Artifact, tflite: Artifact, rows_csv: Path
) -> None:
    for a, b in ((student.folder, tflite.model_path), (onnx.model_path, student.folder), (tflite.folder, onnx.folder)):
        table = compare(a, b, rows_csv).layers
        assert table is not None
        names = [layer.layer for layer in table.layers]
        assert (names[:2], names[-3:]) == (["embeddings", "layer.0"], ["pooling", "head.linear_0", "logits"])
        assert table.first_divergence is None
        assert max(layer.rel_diff for layer in table.layers) < 1e-4


def test_the_first_layer_that_diverges_is_named(
    student: Artifact, onnx: Artifact, rows_csv: Path, tmp_path: Path
) -> None:
    changed = copy_artifact(onnx, tmp_path / "changed")
    model = onnx_format.load(changed.model_path)
    stored = next(t for t in model.graph.initializer if t.name == "head.linear_0.bias")
    stored.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stored) + 0.5, stored.name))
    onnx_format.save(model, changed.model_path)
    comparison = compare(student.folder, changed.folder, rows_csv)
    assert "<- first divergence" in next(line for line in as_text(comparison).splitlines() if "head.linear_0" in line)
    with pytest.raises(ProofError, match=r"; the first layer that diverges is head\.linear_0, "):
        comparison.check(1e-4)
    said = CliRunner().invoke(
        app, ["compare", str(student.folder), str(changed.folder), "--data", str(rows_csv), "--rows", "6", "--json"]
    )
    table = json.loads(said.stdout)["layers"]
    assert table["first_divergence"] == "head.linear_0"
    assert [layer["layer"] for layer in table["layers"]][-1] == "logits"


def test_where_layers_cannot_be_told_it_is_said_and_the_logits_are_compared(
    foreign_tflite: Path, rows_csv: Path, tokenizer: Path, tmp_path: Path
) -> None:
    comparison = compare(bag_onnx(tmp_path / "bag.onnx"), foreign_tflite, rows_csv, tokenizer)
    comparison.check(1e-4)
    assert comparison.layers is not None
    assert not comparison.layers.layers
    assert "layers are not compared: " in as_text(comparison)
    assert "no attention" in as_text(comparison)

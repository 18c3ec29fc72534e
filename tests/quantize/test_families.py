"""The ONNX recipes on the families whose graphs look otherwise than BERT's."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx as onnx_format
import pytest

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.data.dataset import Split
from pocketbert.export.onnx import export_onnx
from pocketbert.params import ExportOnnxParams, QuantizeParams
from pocketbert.quantize.onnx_graph import lookups, products, with_matmuls
from pocketbert.quantize.run import quantize_artifact
from pocketbert.runtimes.engines import open_runtime
from pocketbert.runtimes.rows import run_texts
from tests.export.trained import MAX_LENGTH, make_texts, trained_classifier

# Recipe -> the operator that each product with a weight matrix becomes, and what a lookup becomes.
PRODUCTS = {
    "dynamic_int8": "MatMulInteger",
    "static_int8": "MatMul",
    "weight_only_int8": "MatMulNBits",
    "weight_only_int4": "MatMulNBits",
}


def split(rows: int, seed: int) -> Split:
    texts, targets = make_texts(rows, seed)
    return Split(texts, targets.numpy())


@pytest.fixture(scope="module", params=["mobilebert", "distilbert"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp(request.param) / "onnx"
    export_onnx(ExportOnnxParams(), trained_classifier(request.param), folder)
    return read_artifact(folder)


def logits(artifact: Artifact, texts: list[str]) -> np.ndarray:
    return run_texts(artifact, open_runtime(artifact, threads=1), texts, MAX_LENGTH)


@pytest.mark.parametrize("recipe", PRODUCTS)
def test_onnx_recipes_quantize_every_product_and_keep_the_model(recipe: str, source: Artifact, tmp_path: Path) -> None:
    params = {"calibration": {"rows": 32}, "recipes": {"it": {"format": "onnx", "recipe": recipe}}}
    quantize_artifact(
        QuantizeParams.model_validate(params), "it", {"onnx": source.folder}, split(64, 99), tmp_path / "it"
    )
    built, held_out = read_artifact(tmp_path / "it"), split(200, 98)
    before, after = (onnx_format.load(artifact.model_path) for artifact in (source, built))
    wanted, kinds = len(products(with_matmuls(before))), Counter(node.op_type for node in after.graph.node)
    if recipe == "static_int8":
        record = json.loads((built.folder / "recipe.json").read_text())
        static = wanted - len(record["applied"]["dynamic_instead"])
        assert static > 0
        assert kinds["MatMulInteger"] == wanted - static
        assert kinds["QuantizeLinear"] > 0
    else:
        assert kinds[PRODUCTS[recipe]] == wanted
    # Nothing but norms, biases and what broadcasts is left in float.
    floats = [t for t in after.graph.initializer if t.data_type == onnx_format.TensorProto.FLOAT]
    assert not [t.name for t in floats if len(t.dims) == 2 and min(t.dims) > 8 and not t.name.endswith("_scale")]
    assert len(lookups(before)) >= 2
    reference, found = (logits(artifact, held_out.texts) for artifact in (source, built))
    assert np.mean(reference.argmax(axis=1) == held_out.targets) > 0.6
    assert np.mean(found.argmax(axis=1) == reference.argmax(axis=1)) >= 0.95
    error = np.abs(found - reference).mean() / reference.std(axis=0).mean()
    assert 1e-4 < error < (0.25 if recipe == "weight_only_int4" else 0.08)

"""Layer by layer: which layer diverges first, in exports, quantized and foreign files, and planted faults."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from pocketbert.artifacts import read_artifact
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ProofError
from pocketbert.export import tflite
from pocketbert.inspection.onnx_file import read_onnx
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.numerics.fusion_bases import copy_bases
from pocketbert.numerics.layers import compare_states, first_divergence, name_layers
from pocketbert.numerics.layers_files import FileLayers
from pocketbert.numerics.layers_graph import LayerGraph
from pocketbert.numerics.layers_proof import LayerProof, prove_layers
from pocketbert.numerics.probes import Probes, make_probes
from pocketbert.numerics.validate import validate_exports
from pocketbert.params import ValidateParams
from tests.export.trained import MAX_LENGTH, exported, make_texts, trained_classifier

TEXTS = make_texts(60, seed=99)[0]
LAYERS = ["embeddings", "layer.0", "layer.1", "pooling", "head.linear_0", "logits"]
# torch's name of a tensor -> the layer that it belongs to.
TENSORS = {
    "encoder.embeddings.LayerNorm.bias": "embeddings",
    "encoder.encoder.layer.0.intermediate.dense.bias": "layer.0",
    "encoder.encoder.layer.1.output.LayerNorm.weight": "layer.1",
    "head.linear_0.bias": "head.linear_0",
    "head.linear_1.bias": "logits",
}


def prove(family: str, artifact: Path) -> LayerProof:
    model = load_classifier(exported(family).classifier)
    probes = probes_of(model, exported(family).classifier)
    return prove_layers(read_artifact(artifact), model, probes, np.zeros(len(probes)), 1e-4)


def probes_of(model: PocketBertClassifier, folder: Path) -> Probes:
    return make_probes(TextEncoder(folder), TEXTS, 4, MAX_LENGTH, seed=1, token_types=model.uses_token_types)


@pytest.mark.parametrize("family", ["bert", "distilbert", "mobilebert"])
@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_every_layer_of_an_export_is_found_and_equal(family: str, format: str) -> None:
    proof = prove(family, getattr(exported(family), format))
    assert proof.unknown is None
    assert [layer.layer for layer in proof.layers] == LAYERS
    assert proof.first_divergence is None
    assert max(layer.rel_diff for layer in proof.layers) < 1e-5
    assert min(layer.cosine for layer in proof.layers) > 0.9999999
    assert {"real", "longest", "holes", "shortened", "padding"} <= set(proof.rows)


@pytest.mark.parametrize("family", ["roberta", "mobilebert-layer_norm"])
def test_layers_are_told_in_other_variants_too(family: str, tmp_path: Path) -> None:
    model = load_classifier(trained_classifier(family))
    length = MAX_LENGTH
    probes = probes_of(model, trained_classifier(family))
    path = tmp_path / "layers.tflite"
    path.write_bytes(tflite.convert(model, length, -1e4))
    row = {name: rows[:1] for name, rows in probes.inputs.items()}
    layers = FileLayers(path)
    assert list(layers.run([row[name] for name in layers.inputs])) == LAYERS


@pytest.mark.parametrize(("tensor", "layer"), TENSORS.items())
def test_a_perturbed_weight_in_onnx_is_found_in_its_layer(tensor: str, layer: str, tmp_path: Path) -> None:
    def fault(model: onnx.ModelProto) -> None:
        stored = next(t for t in model.graph.initializer if t.name == tensor)
        values = numpy_helper.to_array(stored).copy()
        values.flat[0] += 0.05
        stored.CopyFrom(numpy_helper.from_array(values, tensor))

    proof = prove("bert", edited_onnx(fault, tmp_path))
    assert proof.first_divergence is not None
    assert proof.first_divergence.layer == layer
    before = LAYERS[: LAYERS.index(layer)]
    assert all(figures.rel_diff < 1e-5 for figures in proof.layers if figures.layer in before)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_perturbed_weight_in_tflite_is_found_in_its_layer(layer: int, tmp_path: Path) -> None:
    wanted = load_classifier(exported("bert").classifier).state_dict()[
        f"encoder.encoder.layer.{layer}.output.dense.weight"
    ]
    shutil.copytree(exported("bert").tflite, tmp_path / "tflite")
    path = tmp_path / "tflite/model.tflite"
    content = bytearray(path.read_bytes())
    place = content.find(wanted.numpy().tobytes())
    assert place > 0
    content[place : place + 64] = np.full(16, 0.7, np.float32).tobytes()
    path.write_bytes(bytes(content))
    copy_bases(exported("bert").tflite / path.name, path)
    proof = prove("bert", tmp_path / "tflite")
    assert proof.first_divergence is not None
    assert proof.first_divergence.layer == f"layer.{layer}"


def test_validate_names_the_first_layer_that_diverges_and_writes_layers_json(tmp_path: Path) -> None:
    def steeper(model: onnx.ModelProto) -> None:
        (node,) = (n for n in model.graph.node if n.op_type == "LeakyRelu")
        node.attribute[0].f = 0.3

    def no_mask(model: onnx.ModelProto) -> None:
        tensors = [a.t for node in model.graph.node for a in node.attribute if a.HasField("t")]
        (mask,) = (t for t in tensors if numpy_helper.to_array(t).size == 1 and numpy_helper.to_array(t).item() == -1e4)
        mask.CopyFrom(numpy_helper.from_array(np.array(0, np.float32), mask.name))

    for fault, layer in ((steeper, "head.linear_0"), (no_mask, "layer.0")):
        folder = tmp_path / layer
        with pytest.raises(ProofError, match=rf"the first layer that diverges is {layer}, "):
            check(edited_onnx(fault, folder), folder)
        written = json.loads((folder / "results/layers.json").read_text(encoding="utf-8"))
        assert written["artifacts"]["onnx-fp32"]["first_divergence"] == layer


def test_a_nan_in_the_middle_is_found_where_it_begins(tmp_path: Path) -> None:
    def fault(model: onnx.ModelProto) -> None:
        stored = next(t for t in model.graph.initializer if t.name == "encoder.encoder.layer.1.output.LayerNorm.bias")
        values = numpy_helper.to_array(stored).copy()
        values[3] = np.nan
        stored.CopyFrom(numpy_helper.from_array(values, stored.name))

    with pytest.raises(ProofError, match=r"NaN or infinite logits.*first layer that diverges is layer\.1"):
        check(edited_onnx(fault, tmp_path), tmp_path)


def check(artifact: Path, folder: Path) -> None:
    validate_exports(ValidateParams(rows=12), exported("bert").classifier, [artifact], TEXTS, folder / "results")


def edited_onnx(fault: Callable[[onnx.ModelProto], None], folder: Path) -> Path:
    shutil.copytree(exported("bert").onnx, folder / "onnx")
    model = onnx.load(folder / "onnx/model.onnx")
    fault(model)
    onnx.save(model, folder / "onnx/model.onnx")
    return folder / "onnx"


def test_the_files_themselves_stay_as_they_are() -> None:
    paths = [exported("bert").onnx / "model.onnx", exported("bert").tflite / "model.tflite"]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        prove("bert", path.parent)
    assert [path.read_bytes() for path in paths] == before


def test_fused_and_quantized_files_are_read_too(tmp_path: Path) -> None:
    """ONNX Runtime's fused nodes and QDQ int8: no name and no operator of the export is left, its layers are."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.transformers import optimizer

    source = exported("bert").onnx / "model.onnx"
    fused = optimizer.optimize_model(str(source), model_type="bert", num_heads=2, hidden_size=32)
    assert fused.get_fused_operator_statistics()["Attention"] == 2
    fused.save_model_to_file(str(tmp_path / "fused.onnx"))
    batch = TextEncoder(exported("bert").onnx).encode(TEXTS[:4], MAX_LENGTH)
    rows = [{name: values[i : i + 1].astype(np.int64) for name, values in batch.items()} for i in range(4)]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rows = iter(rows)

        def get_next(self) -> object:
            return next(self._rows, None)

    quantize_static(str(source), str(tmp_path / "qdq.onnx"), Reader(), quant_format=QuantFormat.QDQ)
    plain = states(source, rows)
    masks = [row["attention_mask"][0] for row in rows]
    for name, limit in (("fused.onnx", 1e-5), ("qdq.onnx", 0.5)):
        figures = compare_states(plain, states(tmp_path / name, rows), masks)
        assert [layer.layer for layer in figures] == LAYERS
        assert first_divergence(figures, limit) is None
        assert first_divergence(figures, 0.0) is not None


def states(path: Path, rows: list[dict[str, np.ndarray]]) -> list:
    layers = FileLayers(path)
    return [layers.run([row[name] for name in layers.inputs]) for row in rows]


def test_a_graph_without_attention_is_refused(tmp_path: Path) -> None:
    from tests.comparison.conftest import bag_onnx

    model = read_onnx(bag_onnx(tmp_path / "bag.onnx"))
    with pytest.raises(ProofError, match="no attention"):
        LayerGraph(model.graph, "scores")


@given(st.integers(0, 4), st.integers(1, 4))
def test_layers_are_named_in_order(encoder: int, head: int) -> None:
    named = name_layers(list(range(encoder + 1)), list(range(head)))
    assert len(named) == encoder + 1 + head
    assert list(named)[: encoder + 1] == ["embeddings", *(f"layer.{i}" for i in range(encoder))]
    assert list(named)[-1] == "logits"


def test_masked_tokens_are_not_compared_and_a_scale_does_not_matter() -> None:
    random = np.random.default_rng(3)
    reference, mask = random.normal(size=(6, 8)).astype(np.float32), np.array([1, 1, 1, 1, 0, 0])
    candidate = reference.copy()
    candidate[4:] += 9
    candidate[1, 2] += 0.25
    for scale in (1.0, 1e4):
        (figures,) = compare_states([{"layer.0": reference * scale}], [{"layer.0": candidate * scale}], [mask])
        spread = reference[:4].astype(np.float64).std(axis=0).mean()
        assert figures.rel_diff == pytest.approx(0.25 / spread, rel=1e-4)
    candidate[0, 0] = np.nan
    (figures,) = compare_states([{"layer.0": reference}], [{"layer.0": candidate}], [mask])
    assert first_divergence([figures], 1e9) is figures
    assert figures.as_dict()["rel_diff"] is None

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketbert.artifacts import Artifact
from pocketbert.data.tokenize import TextEncoder
from pocketbert.numerics.dump import open_dump, probe_rows
from pocketbert.numerics.half import HALF_MAX
from pocketbert.numerics.places import Places
from pocketbert.numerics.probes import make_probes
from pocketbert.numerics.ranges import RangeReport, scan_ranges
from tests.export.trained import exported, make_texts
from tests.numerics.edited import bert, with_constant, with_mask

TEXTS = make_texts(40, seed=99)[0]
LAYER_0, LAYER_1 = "encoder.encoder.layer.0", "encoder.encoder.layer.1"


def scan(artifact: Artifact) -> RangeReport:
    probes = make_probes(TextEncoder(artifact.folder), TEXTS, 4, artifact.card.max_length, seed=0, token_types=True)
    dump = open_dump(artifact.model_path)
    return scan_ranges(str(artifact.model_path), dump, probe_rows(dump, probes, 2))


@pytest.fixture(params=["onnx", "tflite"])
def source(request: pytest.FixtureRequest) -> Path:
    # Without fusions, which change the constants that are edited here.
    return getattr(exported("bert", fused=False), request.param)


def test_a_sound_export_fits_and_longest_and_padded_rows_are_run(source: Path, tmp_path: Path) -> None:
    report = scan(with_mask(source, tmp_path / "same", -1e4))
    assert report.safe, [str(finding) for finding in report.findings]
    assert report.rows["padding"] == 1
    assert report.rows["longest"] == 2
    assert report.widest[0]["cause"] in ("mask", "attention scores")
    assert report.widest[0]["headroom"] == pytest.approx(HALF_MAX / report.widest[0]["largest"])
    json.dumps(report.as_dict(), allow_nan=False)


def test_the_stock_mask_is_named_before_anything_is_converted(source: Path, tmp_path: Path) -> None:
    report = scan(with_mask(source, tmp_path / "stock", np.finfo(np.float32).min))
    (root,) = report.roots
    assert (root.cause, root.constant, root.problem) == ("mask constant", True, "overflow")
    assert root.maximum < -1e38
    # The mask itself and, in both layers, what the softmax reads.
    assert {f.cause for f in report.findings if f.follows} == {"mask", "attention scores"}
    assert {f.layer for f in report.findings if f.cause == "attention scores"} == {"layer 0", "layer 1"}


def test_attention_scores_that_overflow_are_named_with_their_layer(source: Path, tmp_path: Path) -> None:
    name = f"{LAYER_1}.attention.self.key.bias"
    # The queries' bias is folded into a constant of its own in TFLite; large keys are enough.
    changed = with_constant(
        source, tmp_path / "scores", bert(name), bert(name) + np.float32(6e5) * (-1) ** np.arange(32)
    )
    report = scan(changed)
    found = [f for f in report.findings if f.cause == "attention scores"]
    assert found
    assert {f.layer for f in found} == {"layer 1"}
    assert not any("layer 0" in f.layer for f in report.findings)


def test_a_variance_that_overflows_is_named_whether_the_norm_is_one_node_or_many(source: Path, tmp_path: Path) -> None:
    name = f"{LAYER_0}.attention.output.dense.bias"
    changed = with_constant(source, tmp_path / "norm", bert(name), np.float32(400) * (-1) ** np.arange(32))
    report = scan(changed)
    root = report.roots[0]
    assert (root.cause, root.layer) == ("LayerNorm variance", "layer 0")
    # 32 squares of 400 fit one by one into 160,000 > 65,504; in one node it is their sum inside that does not.
    assert root.problem == ("sum overflow" if changed.card.format == "onnx" else "overflow")


def test_an_epsilon_that_fp16_has_not_is_harmless_beside_a_variance() -> None:
    report = scan(_artifact("tflite"))
    assert [f.cause for f in report.harmless] == ["LayerNorm epsilon"]
    assert report.harmless[0].problem == "underflow"


def _artifact(kind: str) -> Artifact:
    from pocketbert.artifacts import read_artifact

    return read_artifact(getattr(exported("bert"), kind))


def run_graph(tmp_path: Path, nodes: Sequence[tuple], constants: dict[str, np.ndarray], x: np.ndarray) -> RangeReport:
    """Scan a graph of (op, inputs, output) with the float input x."""
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(op, inputs, [output], name=f"/{output}") for op, inputs, output in nodes],
            "small",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
            [helper.make_tensor_value_info(nodes[-1][2], TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "small.onnx")
    return scan_ranges("small", open_dump(tmp_path / "small.onnx"), [("real", [x])])


def test_sums_over_a_row_are_pooling_sums(tmp_path: Path) -> None:
    x = np.full((1, 128, 4), 900, np.float32)
    report = run_graph(tmp_path, [("ReduceSum", ["x", "axis"], "sum")], {"axis": np.array([1])}, x)
    assert [(f.cause, f.problem) for f in report.findings] == [("pooling sums", "overflow")]
    # A mean fits; the sum inside it does not, and kernels that add up in fp16 overflow.
    report = run_graph(tmp_path, [("ReduceMean", ["x"], "mean")], {}, x)
    assert [(f.cause, f.problem) for f in report.findings] == [("pooling sums", "sum overflow")]
    assert report.findings[0].maximum == pytest.approx(900 * 128 * 4)


def test_a_floor_that_vanishes_is_no_harmless_constant_where_it_is_divided_by(tmp_path: Path) -> None:
    nodes = [
        ("ReduceSum", ["x", "axis"], "count"),
        ("Max", ["count", "floor"], "bounded"),
        ("Div", ["x", "bounded"], "y"),
    ]
    constants = {"axis": np.array([1]), "floor": np.float32(1e-9)}
    assert run_graph(tmp_path, nodes, constants, np.ones((1, 4), np.float32)).safe
    empty = run_graph(tmp_path, nodes, constants, np.zeros((1, 4), np.float32))
    assert {(f.tensor, f.problem) for f in empty.findings} == {("floor", "underflow"), ("bounded", "underflow")}


def test_a_tensor_of_denormal_numbers_is_lost_unless_it_is_added_to_larger_ones(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(1, 64)).astype(np.float32)
    tiny = {"tiny": np.float32(1e-8), "big": np.float32(1e8)}
    lost = run_graph(tmp_path, [("Mul", ["x", "tiny"], "small"), ("Mul", ["small", "big"], "y")], tiny, x)
    assert "small" in {f.tensor for f in lost.findings if f.problem == "underflow"}
    del tiny["big"]
    added = run_graph(tmp_path, [("Mul", ["x", "tiny"], "small"), ("Add", ["small", "x"], "y")], tiny, x)
    assert {f.tensor for f in added.findings} == {"tiny"}
    assert {f.tensor for f in added.harmless} == {"small"}


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_places_are_told_by_names_and_by_order_alike(kind: str) -> None:
    dump = open_dump(_artifact(kind).model_path)
    places = Places(dump.graph, dump.outputs)
    values = [value for node in dump.graph.nodes for value in node.outputs]
    found = {(places.layer(value), places.cause(value)) for value in values}
    blocks = ("layer 0", "layer 1")
    assert {(b, c) for b in blocks for c in ("attention scores", "attention probabilities", "activation")} <= found
    assert {("embeddings", "embeddings"), ("head", "linear layer"), ("", "mask"), ("", "pooling sums")} <= found
    assert {layer for layer, _ in found} == {"", "embeddings", *blocks, "head"}
    norm = "LayerNorm" if kind == "onnx" else "LayerNorm variance"
    assert {(part, norm) for part in ("embeddings", *blocks)} <= found
    assert len(places.scores()) == 2

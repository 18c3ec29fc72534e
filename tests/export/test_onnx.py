import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketbert.artifacts import read_artifact
from pocketbert.errors import ExportError
from pocketbert.export.onnx import export_onnx, to_onnx
from pocketbert.export.rewrites import replace_mask_value
from pocketbert.numerics.constants import read_constants
from pocketbert.params import ExportOnnxParams
from tests.export.trained import MAIN_FAMILIES, MAX_LENGTH, build_classifier, exported, trained_classifier

STOCK = np.finfo(np.float32).min


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_inputs_are_named_and_dynamic(family):
    graph = onnx.load(exported(family).onnx / "model.onnx").graph
    types = [] if family == "distilbert" else ["token_type_ids"]
    shapes = {i.name: [d.dim_param for d in i.type.tensor_type.shape.dim] for i in graph.input}
    assert shapes == {n: ["batch_size", "sequence_length"] for n in ["input_ids", "attention_mask", *types]}
    assert [o.name for o in graph.output] == ["logits"]


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_the_mask_value_is_the_only_large_number(family):
    artifact = read_artifact(exported(family).onnx)
    assert (artifact.name, artifact.card.sequence_length, artifact.card.max_length) == ("onnx-fp32", None, MAX_LENGTH)
    numbers = {c.item() for c in read_constants(artifact).values() if c.size == 1}
    assert -1e4 in numbers
    assert min(numbers) == -1e4


@pytest.mark.parametrize("opset", [14, 20])
def test_the_opset_is_the_one_asked_for(opset):
    exported = to_onnx(build_classifier("bert").eval(), opset)
    assert {entry.version for entry in exported.opset_import if entry.domain == ""} == {opset}


def test_an_opset_without_the_models_operations_is_an_export_error(tmp_path):
    with pytest.raises(ExportError, match=r"export_onnx.opset = 11: .*scaled_dot_product_attention"):
        export_onnx(ExportOnnxParams(opset=11), trained_classifier("bert"), tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def graph_of(nodes, initializers) -> onnx.ModelProto:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph(nodes, "g", [], [output], initializers))


def test_a_mask_in_an_initializer_is_replaced_element_by_element():
    bias = np.array([[0.0, STOCK], [-np.inf, 2.0]], np.float32)
    model = graph_of([helper.make_node("Identity", ["mask"], ["y"])], [numpy_helper.from_array(bias, "mask")])
    assert replace_mask_value(model, -1e4) == 2
    assert numpy_helper.to_array(model.graph.initializer[0]).tolist() == [[0.0, -1e4], [-1e4, 2.0]]


@pytest.mark.parametrize(("operator", "shape"), [("Constant", ()), ("Constant", (1, 1)), ("ConstantOfShape", (1,))])
def test_a_mask_in_a_node_is_replaced(operator, shape):
    value = numpy_helper.from_array(np.full(shape, STOCK, np.float32))
    inputs = [] if operator == "Constant" else ["shape"]
    nodes = [
        helper.make_node(operator, inputs, ["c"], value=value),
        helper.make_node("Expand", ["c", "shape"], ["e"]),
        helper.make_node("Where", ["condition", "e", "zero"], ["y"]),
    ]
    model = graph_of(nodes, [numpy_helper.from_array(np.zeros(1, np.float32), "zero")])
    assert replace_mask_value(model, -100.0) == 1
    assert numpy_helper.to_array(model.graph.node[0].attribute[0].t).reshape(-1).tolist() == [-100.0]


def test_a_mask_inside_a_branch_is_replaced():
    constant = helper.make_node("Constant", [], ["b"], value=numpy_helper.from_array(np.array(STOCK)))
    output = helper.make_tensor_value_info("b", TensorProto.FLOAT, [])
    branch = helper.make_graph([constant], "branch", [], [output])
    model = graph_of([helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)], [])
    assert replace_mask_value(model, -1e4) == 2


def test_a_graph_without_a_mask_constant_is_an_export_error():
    model = graph_of(
        [helper.make_node("Identity", ["x"], ["y"])], [numpy_helper.from_array(np.ones(3, np.float32), "x")]
    )
    with pytest.raises(ExportError, match="no mask constant"):
        replace_mask_value(model, -1e4)

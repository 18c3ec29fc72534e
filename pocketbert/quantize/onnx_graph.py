"""What the ONNX recipes need to know of a graph."""

import onnx
from onnx import NodeProto, TensorProto, helper

MICROSOFT = "com.microsoft"


def lookups(model: onnx.ModelProto) -> list[NodeProto]:
    """The Gather nodes that read rows of a constant float table."""
    constants = {t.name: t for t in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type == "Gather" and _reads_rows(node, constants)]


def products(model: onnx.ModelProto) -> list[NodeProto]:
    """MatMuls by a constant float matrix, in order."""
    matrices = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 2}
    return [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in matrices]


def with_matmuls(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gemm as MatMul and Add, which every quantizer knows; both take the name of the node, and more."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    wrapped = ONNXModel(model)
    wrapped.replace_gemm_with_matmul()
    replaced: onnx.ModelProto = wrapped.model
    return replaced


def import_domain(model: onnx.ModelProto, domain: str) -> None:
    """Declare version 1 of a domain of operators, where it is not declared yet."""
    if all(entry.domain != domain for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(domain, 1))


def _reads_rows(node: NodeProto, constants: dict[str, TensorProto]) -> bool:
    table = constants.get(node.input[0])
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    return table is not None and axis == 0 and len(table.dims) == 2 and table.data_type in floats

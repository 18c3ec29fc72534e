"""A rewrite of the converted flatbuffer without which a GPU delegate computes something else.

LiteRT's GPU delegate reads a tensor of rank 2, [S, H], as S batches of one row. Where an elementwise op joins it with
a constant of S rows (position embeddings), it adds the first row of the constant to all of them, and says nothing:
the graph is wholly delegated and wrong (measured with ai-edge-litert 2.3.0, docs/decisions.md). With the token axis
in its place, [1, S, H], the sum is right. TensorFlow's converter moves every reshape behind such an op, so that the
graph that it is given cannot say it.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from pocketbert.inspection.tflite_file import op_kind

_ELEMENTWISE = {"ADD", "MUL", "SUB"}


def restore_token_axis(model: bytes) -> tuple[bytes, int]:
    """Reshape [S, H] to [1, S, H] before each elementwise op with a constant of S rows; the model and the count.

    Bit-equal on a CPU.
    """
    tree = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    graph, operators, changed = tree.subgraphs[0], [], 0
    for op in graph.operators:
        flat = _flat_input(tree, graph, op)
        if flat is None:
            operators.append(op)
            continue
        changed += 1
        rows = graph.tensors[op.inputs[flat]]
        shape = np.array([1, *rows.shape], dtype=np.int32)
        source = op.inputs[flat]
        op.inputs[flat] = _add_tensor(graph, rows, shape, b"/token_axis")
        operators += [_reshape(tree, source, op.inputs[flat], shape), op]
        result = op.outputs[0]
        before = graph.tensors[result].shape
        if len(before) == 2:
            op.outputs[0] = _add_tensor(graph, graph.tensors[result], shape, b"/token_axis")
            operators.append(_reshape(tree, op.outputs[0], result, before))
    if not changed:
        return model, 0
    graph.operators = operators
    return bytes(flatbuffer_utils.convert_object_to_bytearray(tree)), changed


def _flat_input(tree: Any, graph: Any, op: Any) -> int | None:
    """Which input is a computed [S, H] beside a constant of more than one row; None where there is none."""
    if op_kind(tree, op) not in _ELEMENTWISE:
        return None
    tensors = [graph.tensors[index] for index in op.inputs]
    constant = [tree.buffers[tensor.buffer].data is not None for tensor in tensors]
    for index in range(2):
        rows, other = tensors[index], tensors[1 - index]
        many = len(other.shape) >= 2 and int(np.prod(other.shape[:-1])) > 1
        if not constant[index] and constant[1 - index] and len(rows.shape) == 2 and many:
            return index
    return None


def _reshape(tree: Any, source: int, target: int, shape: NDArray[np.int32]) -> Any:
    """An op that gives `source` another shape."""
    wanted = schema.BuiltinOperator.RESHAPE
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in tree.operatorCodes]
    if wanted not in codes:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = wanted
        code.version = 1
        tree.operatorCodes.append(code)
        codes.append(wanted)
    options = schema.ReshapeOptionsT()
    options.newShape = shape
    op = schema.OperatorT()
    op.opcodeIndex = codes.index(wanted)
    op.inputs, op.outputs = np.array([source], np.int32), np.array([target], np.int32)
    op.builtinOptions, op.builtinOptionsType = options, schema.BuiltinOptions.ReshapeOptions
    return op


def _add_tensor(graph: Any, like: Any, shape: NDArray[np.int32], suffix: bytes) -> int:
    """A computed tensor of the type of `like`; returns its index."""
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape = like.name + suffix, like.type, shape
    # The empty buffer: its values are not in the file.
    tensor.buffer, tensor.hasRank = 0, True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1

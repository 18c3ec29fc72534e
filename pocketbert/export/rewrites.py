"""Named rewrites of an ONNX graph. Each changes the model in place and returns how many places it changed."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from pocketbert.errors import ExportError

# Stock masks are the smallest float32 (-3.4e38), or -inf. Neither can be held, or added up, in half precision.
STOCK_MASK_BELOW = -1e30


def replace_mask_value(model: onnx.ModelProto, mask_value: float) -> int:
    """Put `mask_value` in the place of every stock mask constant; raises ExportError where there is none.

    Whatever form the mask takes (a Where, a product with 1 - mask, an Expand of either), its number comes from an
    initializer or from the tensor of a Constant or ConstantOfShape node.
    """
    replaced = 0
    for tensor in _tensors(model.graph):
        if tensor.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
            continue
        values = numpy_helper.to_array(tensor)
        stock = values < STOCK_MASK_BELOW
        if stock.any():
            rewritten = np.where(stock, np.asarray(mask_value, values.dtype), values)
            tensor.CopyFrom(numpy_helper.from_array(rewritten.reshape(values.shape), tensor.name))
            replaced += int(stock.sum())
    if not replaced:
        raise ExportError(
            "the exported graph holds no mask constant that could be replaced by mask_value",
            "The encoder masks in an unknown way; see docs/conversion.md on adding a family.",
        )
    return replaced


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every constant tensor of a graph and of the graphs inside its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from _tensors(attribute.g)

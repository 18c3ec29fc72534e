"""Weight matrices of an ONNX graph by blocks of int4 or int8, multiplied by ONNX Runtime's MatMulNBits.

onnxruntime.quantization's own rewrite of these nodes needs the package onnx_ir, which ONNX Runtime does not install.
"""

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pocketbert.quantize.blocks import pack, quantize_blocks
from pocketbert.quantize.onnx_graph import MICROSOFT, import_domain, products
from pocketbert.quantize.options import OnnxWeightOnlyOptions


def quantize_matmuls(
    model: onnx.ModelProto, bits: int, options: OnnxWeightOnlyOptions, kept: Collection[str]
) -> list[str]:
    """Turn each MatMul by a constant matrix, but those named in `kept`, into a MatMulNBits; return their names."""
    constants = {t.name: t for t in model.graph.initializer}
    chosen = [node for node in products(model) if node.name not in kept]
    stored: dict[str, list[TensorProto]] = {}
    for node in chosen:
        weight = constants[node.input[1]]
        if weight.name not in stored:
            stored[weight.name] = _stored(weight.name, numpy_helper.to_array(weight), bits, options)
        _rewrite(node, weight, [t.name for t in stored[weight.name]], bits, options)
    still_read = {name for node in model.graph.node for name in node.input}
    for name, tensors in stored.items():
        if name not in still_read:
            model.graph.initializer.remove(constants[name])
        model.graph.initializer.extend(tensors)
    if chosen:
        import_domain(model, MICROSOFT)
    return [node.name for node in chosen]


def _stored(name: str, weight: NDArray[np.float32], bits: int, options: OnnxWeightOnlyOptions) -> list[TensorProto]:
    """Levels uint8 [columns, blocks, bytes], scales [columns, blocks] and, if not symmetric, the levels of 0."""
    rows, columns = weight.shape
    padded = np.pad(weight.T, ((0, 0), (0, -rows % options.block_size)))
    blocks = quantize_blocks(padded.reshape(columns, -1, options.block_size), bits, options.symmetric)
    tensors = [
        numpy_helper.from_array(pack(blocks.levels, bits), f"{name}_int{bits}"),
        numpy_helper.from_array(blocks.scale, f"{name}_scale"),
    ]
    if blocks.zero is not None:
        tensors.append(numpy_helper.from_array(pack(blocks.zero, bits), f"{name}_zero"))
    return tensors


def _rewrite(
    node: NodeProto, weight: TensorProto, stored: list[str], bits: int, options: OnnxWeightOnlyOptions
) -> None:
    rows, columns = weight.dims
    replacement = helper.make_node(
        "MatMulNBits", [node.input[0], *stored], list(node.output), node.name, domain=MICROSOFT,
        K=rows, N=columns, bits=bits, block_size=options.block_size, accuracy_level=options.accuracy_level,
    )  # fmt: skip
    node.CopyFrom(replacement)

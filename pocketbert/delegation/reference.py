"""A quantized .tflite file in floating point: what a GPU computes, which dequantizes the weights and never rounds rows.

LiteRT's CPU quantizes the activations of dynamic recipes at every run; the GPU does not. Against the CPU's own result a
right GPU would look wrong, so that the same weights, dequantized, are run on the CPU in float32.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from pocketbert.errors import DeviceError
from pocketbert.inspection.tflite_file import op_kind

_TYPES: dict[int, Any] = {
    schema.TensorType.INT8: np.int8,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
}
_INT4, _FLOAT32 = schema.TensorType.INT4, schema.TensorType.FLOAT32
# They change a number's type and nothing else.
_CASTS = ("QUANTIZE", "DEQUANTIZE")


def quantizes_activations(path: Path) -> bool:
    """Whether computed tensors are quantized (static recipes), and not weights alone."""
    tree = flatbuffer_utils.read_model(str(path))
    tensors = tree.subgraphs[0].tensors
    return any(_is_quantized(tensor) and tree.buffers[tensor.buffer].data is None for tensor in tensors)


def quantized_ends(path: Path) -> str:
    """The name of an input or output that is quantized; "" where none is."""
    graph = flatbuffer_utils.read_model(str(path)).subgraphs[0]
    ends = (graph.tensors[index] for index in (*graph.inputs, *graph.outputs))
    return next((str(tensor.name.decode(errors="replace")) for tensor in ends if _is_quantized(tensor)), "")


def write_in_float(path: Path, target: Path) -> bool:
    """Write the file with all that is quantized in float32; False, and nothing written, where nothing is."""
    tree = flatbuffer_utils.read_model(str(path))
    graph = tree.subgraphs[0]
    quantized = [tensor for tensor in graph.tensors if _is_quantized(tensor)]
    if not quantized:
        return False
    # A buffer may serve several tensors, each with scales of its own.
    stored = {tensor.buffer: tree.buffers[tensor.buffer].data for tensor in quantized}
    for tensor in quantized:
        if (raw := stored[tensor.buffer]) is not None:
            tree.buffers[tensor.buffer].data = None
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(_dequantized(tree, tensor, raw).tobytes(), np.uint8)
            tree.buffers.append(buffer)
            tensor.buffer = len(tree.buffers) - 1
        tensor.type, tensor.quantization = _FLOAT32, None
    for buffer in tree.buffers:
        # Anything but an array is packed byte by byte, in minutes.
        if isinstance(buffer.data, bytes | bytearray | list):
            buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)
    _drop_casts(tree, graph)
    flatbuffer_utils.write_model(tree, str(target))
    return True


def _is_quantized(tensor: Any) -> bool:
    stored = tensor.quantization
    if stored is None or tensor.type not in (*_TYPES, _INT4):
        return False
    return _by_blocks(stored) or (stored.scale is not None and len(stored.scale) > 0)


def _by_blocks(stored: Any) -> bool:
    return bool(stored.detailsType == schema.QuantizationDetails.BlockwiseQuantization)


def _dequantized(tree: Any, tensor: Any, data: Any) -> NDArray[np.float32]:
    """(q - zero point) * scale, the scale by channel along its axis (TFLite's 8-bit quantization specification)."""
    values, stored = _stored_values(tensor, data), tensor.quantization
    if _by_blocks(stored):
        return np.asarray(values * _block_scales(tree, stored.details, values.shape), np.float32)
    along = [1] * values.ndim
    if len(stored.scale) > 1:
        along[stored.quantizedDimension] = -1
    scale = np.asarray(stored.scale, np.float32).reshape(along)
    zero = np.asarray(stored.zeroPoint if stored.zeroPoint is not None else [0], np.int64)
    zero = zero.reshape(along) if len(zero) > 1 else zero.reshape([1] * values.ndim)
    return np.asarray((values.astype(np.int64) - zero) * scale, np.float32)


def _stored_values(tensor: Any, data: Any) -> NDArray[Any]:
    """The integers of a tensor, in its shape."""
    raw = np.frombuffer(bytes(data), np.uint8)
    shape = tuple(tensor.shape) if tensor.shape is not None else ()
    if tensor.type != _INT4:
        return np.frombuffer(raw.tobytes(), _TYPES[tensor.type]).reshape(shape)
    # The lower four bits first; the sign is in the upper one of each.
    nibbles = np.stack([raw & 15, raw >> 4], axis=1).reshape(-1)[: int(np.prod(shape))].astype(np.int8)
    return np.where(nibbles > 7, nibbles - 16, nibbles).reshape(shape)


def _block_scales(tree: Any, details: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A scale a value; blocks lie along the last axis. Raises DeviceError for zero points, which no recipe writes."""
    if details.zeroPoints >= 0:
        raise DeviceError("a tensor with a zero point a block is not known here", "Quantize it symmetrically.")
    scales = tree.subgraphs[0].tensors[details.scales]
    kind = np.float16 if scales.type == schema.TensorType.FLOAT16 else np.float32
    by_block = np.frombuffer(bytes(tree.buffers[scales.buffer].data), kind).reshape(tuple(scales.shape))
    return np.repeat(by_block, shape[-1] // by_block.shape[-1], axis=-1).astype(np.float32)


def _drop_casts(tree: Any, graph: Any) -> None:
    """Leave the QUANTIZE and DEQUANTIZE operators out, whose two ends are the same now."""
    same: dict[int, int] = {}
    kept = []
    for op in graph.operators:
        ends = (graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]])
        op.inputs = np.array([same.get(int(i), int(i)) for i in op.inputs], np.int32)
        if op_kind(tree, op) in _CASTS and all(end.type == _FLOAT32 for end in ends):
            same[int(op.outputs[0])] = int(op.inputs[0])
        else:
            kept.append(op)
    graph.operators = kept
    graph.outputs = np.array([same.get(int(i), int(i)) for i in graph.outputs], np.int32)
    for signature in tree.signatureDefs or []:
        for output in signature.outputs:
            output.tensorIndex = same.get(output.tensorIndex, output.tensorIndex)

"""The version of an operator that the types of its tensors ask for, whatever version the file states.

ai-edge-quantizer leaves the versions of the float model in a quantized file, so that a runtime that is too old loads it
and may compute nonsense. The facts are those of LiteRT's tflite/tools/versioning/op_version.cc
(github.com/google-ai-edge/LiteRT, commit 22f0209), restricted to what the recipes of BERT-family graphs write.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# Operators whose first input in int8 asks for this version.
_INT8 = {
    **dict.fromkeys(("ABS", "ADD", "BATCH_MATMUL", "CONCATENATION", "GATHER", "LOGISTIC", "MAXIMUM", "MEAN"), 2),
    **dict.fromkeys(("MINIMUM", "MUL", "PACK", "PAD", "REDUCE_MAX", "RELU", "RSQRT", "SLICE", "SOFTMAX"), 2),
    **dict.fromkeys(("STRIDED_SLICE", "SUB", "TANH", "TRANSPOSE", "UNPACK"), 2),
    "TILE": 3,
}
# (input, weights) of FULLY_CONNECTED -> version, with one scale a tensor.
_CONNECTED = {
    ("float32", "int8"): 3,
    ("int8", "int8"): 4,
    ("int16", "int16"): 7,
    ("int8", "int4"): 10,
    ("int16", "int4"): 13,
}
_CONNECTED_BY_CHANNEL = {("float32", "int8"): 12}


@dataclass(frozen=True)
class Stored:
    """How a tensor is stored."""

    dtype: str
    # One scale a channel or row, not one for all.
    by_channel: bool = False
    # One scale a block of a row.
    by_block: bool = False


def needed_version(op: str, inputs: Sequence[Stored], outputs: Sequence[Stored]) -> int | None:
    """The lowest version for these types, 1 where they ask for nothing; None where LiteRT's own table lacks them."""
    if op == "FULLY_CONNECTED" and len(inputs) > 1:
        return _fully_connected(inputs[0], inputs[1])
    if op == "EMBEDDING_LOOKUP" and len(inputs) > 1:
        return 4 if inputs[1].dtype == "int4" or inputs[1].by_channel else 1
    if op == "DEQUANTIZE" and inputs:
        by_dtype = {"int4": 6, "float16": 3, "int16": 3, "int8": 5 if inputs[0].by_channel else 2}
        return by_dtype.get(inputs[0].dtype, 1)
    if op == "QUANTIZE" and inputs and outputs:
        if "int4" in (inputs[0].dtype, outputs[0].dtype):
            return 4
        by_channel = inputs[0].by_channel or outputs[0].by_channel
        return 3 if by_channel else 2 if outputs[0].dtype == "int16" else 1
    if op == "GATHER" and inputs and inputs[0].dtype == "int4":
        return 7
    return _INT8.get(op, 1) if inputs and inputs[0].dtype == "int8" else 1


def _fully_connected(value: Stored, weights: Stored) -> int | None:
    types = (value.dtype, weights.dtype)
    if weights.by_block or types == ("float32", "int4"):
        return None
    if weights.by_channel and types in _CONNECTED_BY_CHANNEL:
        return _CONNECTED_BY_CHANNEL[types]
    return _CONNECTED.get(types, 1)

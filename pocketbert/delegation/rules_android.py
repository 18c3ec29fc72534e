"""The GPU delegate of TensorFlow Lite 2.x on Android (TfLiteGpuDelegateV2), read off its source and its issues.

Nothing here runs that delegate: the profile predicts and never measures. Where releases differ, the stricter counts.
"""

import math

from pocketbert.delegation.operators import Operator, Tensor
from pocketbert.delegation.rules import Profile, Rule, computed_shapes

_BUILDER = "tensorflow/lite/delegates/gpu/common/model_builder.cc"
_CHECKS = "tensorflow/lite/tools/versioning/gpu_compatibility.cc"
_SHAPES = "tensorflow/lite/delegates/gpu/common/model_builder_helper.cc, ExtractTensorShape"
_ELEMENTWISE = frozenset(
    {
        *("ABS", "ADD", "COS", "DIV", "ELU", "EQUAL", "EXP", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "GREATER", "LESS"),
        *("GREATER_EQUAL", "LESS_EQUAL", "LOG", "LOGISTIC", "MAXIMUM", "MINIMUM", "MUL", "NEG", "NOT_EQUAL", "POW"),
        *("RSQRT", "SIN", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SUB", "TANH"),
    }
)
_COMPARISONS = frozenset({"EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL"})
_TAKEN = _ELEMENTWISE | {
    *("AVERAGE_POOL_2D", "BATCH_MATMUL", "CAST", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE"),
    *("DEQUANTIZE", "FULLY_CONNECTED", "HARD_SWISH", "LEAKY_RELU", "MAX_POOL_2D", "MEAN", "MIRROR_PAD", "PACK", "PAD"),
    *("PRELU", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE"),
    *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V"),
    *("STRIDED_SLICE", "SUM", "TILE", "TRANSPOSE", "TRANSPOSE_CONV"),
}
_VERSIONS = dict.fromkeys(_ELEMENTWISE, 2) | {
    "MUL": 3, "CONCATENATION": 2, "CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "DEQUANTIZE": 3, "FULLY_CONNECTED": 9,
    "SOFTMAX": 2, "SPACE_TO_DEPTH": 2, "STRIDED_SLICE": 2,
}  # fmt: skip
_COMPUTED = frozenset({"float32", "float16", "int8", "uint8"})


def _types(operator: Operator) -> bool:
    allowed_in = _COMPUTED | ({"bool"} if operator.kind == "CAST" else set())
    allowed_out = _COMPUTED | ({"bool"} if operator.kind in _COMPARISONS else set())
    wrong_in = any(t.dtype not in allowed_in for t in operator.inputs if not t.constant)
    return wrong_in or any(t.dtype not in allowed_out for t in operator.outputs if not t.constant)


def _batches(operator: Operator) -> bool:
    return any(len(shape) > 0 and shape[0] != 1 for shape in computed_shapes(operator))


def _width(operator: Operator) -> bool:
    """Whether a FULLY_CONNECTED reads more than one row of its weights' width."""
    if operator.kind != "FULLY_CONNECTED":
        return False
    rows, weights = operator.inputs[:2]
    return math.prod(rows.shape[1:]) != weights.shape[-1]


def _two_dimensional_constant(operator: Operator) -> bool:
    constants = [t for t in operator.inputs if t.constant]
    return operator.kind in _ELEMENTWISE and any(len(t.shape) == 2 and t.shape[0] != 1 for t in constants)


def _ranks(operator: Operator) -> bool:
    """Operands of ADD and MUL whose ranks differ in a way that is not broadcast."""
    if operator.kind not in ("ADD", "MUL") or len(operator.inputs) != 2:
        return False
    long, short = sorted((t.shape for t in operator.inputs), key=len, reverse=True)
    if len(short) < 2 or len(long) == len(short):
        return False
    if len(long) != 4:
        return True
    if len(short) == 3:
        return long[0] != 1
    return short != (1, 1) and (long[0], long[3]) != short


def _crossed(operator: Operator) -> bool:
    """A MUL of which each operand is broadcast along another axis."""
    if operator.kind != "MUL" or len(operator.inputs) != 2:
        return False
    one, other = (tensor.shape for tensor in operator.inputs)
    pairs = list(zip(one, other, strict=False))
    return len(one) == len(other) and any(a < b for a, b in pairs) and any(a > b for a, b in pairs)


def _transposes(operator: Operator) -> bool:
    return operator.kind == "BATCH_MATMUL" and bool(operator.options.get("adjX") or operator.options.get("adjY"))


def _int4(tensor: Tensor) -> bool:
    return "int4" in (tensor.dtype, tensor.stored) or tensor.scales == "block"


def _slices(operator: Operator) -> bool:
    sliced = operator.kind in ("SLICE", "STRIDED_SLICE")
    return sliced and (len(operator.inputs[0].shape) not in (3, 4) or bool(operator.options.get("shrinkAxisMask")))


ANDROID = Profile(
    "tflite-android-2.x",
    (
        Rule(
            "refused",
            "a lookup, which these delegates do not take",
            "Look up on the host and feed the embeddings: export_tflite.profile: embeddings.",
            f"{_BUILDER}, NewOperationParser; tensorflow#57610",
            lambda op: op.kind in ("GATHER", "EMBEDDING_LOOKUP", "GATHER_ND"),
        ),
        Rule(
            "refused",
            "GELU, which these delegates do not take",
            "Express it by EXP or TANH, MUL and ADD: export_tflite.profile: embeddings.",
            f"{_BUILDER}, NewOperationParser",
            lambda op: op.kind == "GELU",
        ),
        Rule(
            "refused",
            "an operator that these delegates do not take",
            "Express it by others, or leave it out of the exported graph.",
            f"{_BUILDER}, NewOperationParser",
            lambda op: op.kind not in _TAKEN,
        ),
        Rule(
            "refused",
            "a version of the operator that is newer than the delegate",
            "Convert in floating point: the newer versions are those of quantized and other types.",
            f"{_BUILDER}, CheckMaxSupportedOpVersion",
            lambda op: op.version > _VERSIONS.get(op.kind, op.version),
        ),
        Rule(
            "refused",
            "a computed tensor that is not in floating point (or int8)",
            "Feed a float mask and float embeddings: export_tflite.profile: embeddings.",
            f"{_BUILDER}, GetOpsToReplace",
            _types,
        ),
        Rule(
            "refused",
            "weights in int4, or with a scale a block",
            "Quantize with dynamic_wi8_afp32 or fp16.",
            f"{_BUILDER}, GetOpsToReplace",
            lambda op: any(map(_int4, op.inputs)),
        ),
        Rule(
            "refused",
            "a tensor of more than four dimensions",
            "Fold the batch into another dimension: it is 1.",
            f"{_BUILDER}, IsAllAllowedTensors",
            lambda op: any(len(t.shape) > 4 for t in (*op.inputs, *op.outputs)),
        ),
        Rule(
            "refused",
            "a slice that drops an axis, or of a tensor that has not three or four",
            "Take the row with SLICE from [1, S, H].",
            f"{_CHECKS}, Slice and StridedSlice",
            _slices,
        ),
        Rule(
            "refused",
            "a comparison that is read by anything but one CAST",
            "Compute the mask in floating point.",
            f"{_BUILDER}, ElementwiseOperationParser",
            lambda op: op.kind in _COMPARISONS and op.read_by != ("CAST",),
        ),
        Rule(
            "refused",
            "operands of different rank that are not broadcast",
            "Reshape the smaller one to the rank of the other.",
            f"{_CHECKS}, CheckAddMulBroadcastCompatibility",
            _ranks,
        ),
        Rule(
            "refused",
            "operands that are broadcast along different axes",
            "Repeat one of them with TILE.",
            f"{_CHECKS}, Mul",
            _crossed,
        ),
        Rule(
            "fatal",
            "a fully connected layer over several rows: the delegate fails as a whole",
            "Make it a 1x1 CONV_2D over [1, 1, S, H]: export_tflite.profile: embeddings.",
            f"{_BUILDER}, FullyConnectedOperationParser; tensorflow#35445, #58607",
            _width,
        ),
        Rule(
            "fatal",
            "a constant of two dimensions beside a tensor: the delegate fails as a whole",
            "Give it three dimensions: [1, S, H].",
            f"{_BUILDER}, ParseInputsWithConstTensor; tensorflow#45845",
            _two_dimensional_constant,
        ),
        Rule(
            "refused",
            "a batch other than 1: the first axis of every tensor is read as one",
            "Keep the first axis 1: [1, S, H], [1, heads, S, d]; export_tflite.profile: embeddings.",
            f"{_SHAPES}; tensorflow#92798",
            _batches,
        ),
        Rule(
            "wrong",
            "a product that transposes an operand: the flag is not read",
            "Transpose before it, with TRANSPOSE.",
            f"{_BUILDER}, BatchedMatMulOperationParser",
            _transposes,
        ),
    ),
    measurable=False,
)

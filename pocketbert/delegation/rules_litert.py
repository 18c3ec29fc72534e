"""LiteRT 2.3's GPU accelerator, as measured here."""

from pocketbert.delegation.operators import Operator
from pocketbert.delegation.rules import Profile, Rule, computed_shapes, lookup_rank, weights_stored

_MEASURED = "benchmarks/delegation.py, ai-edge-litert 2.3.0 on lavapipe 25.0.7, 2026-11-20"
_RECIPES = "tests/delegation/test_recipes.py, ai-edge-litert 2.3.0 on lavapipe 25.0.7, 2026-11-20"
# Each taken and computed right, alone behind a lookup and a fully connected layer.
_TAKEN = frozenset(
    {
        *("ABS", "ADD", "ADD_N", "ARG_MAX", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CAST", "CONCATENATION", "CONV_2D"),
        *("COS", "CUMSUM", "DEPTHWISE_CONV_2D", "DEQUANTIZE", "DIV", "ELU", "EMBEDDING_LOOKUP", "EQUAL", "EXP"),
        *("FLOOR", "FULLY_CONNECTED", "GATHER", "GELU", "GREATER", "HARD_SWISH", "LEAKY_RELU", "LESS", "LOG"),
        *("LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL", "NEG", "ONE_HOT", "PACK", "PAD", "POW"),
        *("QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "RESHAPE", "RESIZE_BILINEAR", "REVERSE_V2"),
        *("RSQRT", "SELECT_V2", "SIN", "SLICE", "SOFTMAX", "SPLIT", "SQRT", "SQUARE", "SQUARED_DIFFERENCE"),
        *("STRIDED_SLICE", "SUB", "SUM", "TANH", "TILE", "TOPK_V2", "TRANSPOSE", "TRANSPOSE_CONV"),
    }
)
_TYPES = frozenset({"float32", "float16", "int32", "int8", "uint8", "int4", "bool"})
_LOOKUPS = ("GATHER", "EMBEDDING_LOOKUP")


def _flat_beside_rows(operator: Operator) -> bool:
    """A computed [S, H] joined elementwise with a constant of several rows."""
    if operator.kind not in ("ADD", "MUL", "SUB") or len(operator.inputs) != 2:
        return False
    return any(
        not one.constant and len(one.shape) == 2 and other.constant and len(other.shape) >= 2 and other.shape[-2] > 1
        for one, other in (operator.inputs, operator.inputs[::-1])
    )


def _half_table(operator: Operator) -> bool:
    """A lookup in a table that is stored in fp16, or the DEQUANTIZE before it."""
    if operator.kind == "DEQUANTIZE":
        return operator.inputs[0].dtype == "float16" and "EMBEDDING_LOOKUP" in operator.read_by
    return operator.kind == "EMBEDDING_LOOKUP" and operator.inputs[1].stored == "float16"


def _scalar_beside_a_tensor(operator: Operator) -> bool:
    """A computed scalar that is broadcast; among themselves scalars are taken."""
    scalars = [tensor for tensor in operator.inputs if tensor.shape == () and not tensor.constant]
    return len(operator.inputs) == 2 and bool(scalars) and any(tensor.shape for tensor in operator.outputs)


def _blocks(operator: Operator, kind: str) -> bool:
    return operator.kind == kind and any(tensor.scales == "block" for tensor in operator.inputs)


_REFUSED = (
    Rule(
        "refused",
        "an operator that the delegate does not take, or that was never tried",
        "Express it by others, or leave it out of the exported graph.",
        _MEASURED,
        lambda op: op.kind not in _TAKEN,
    ),
    Rule(
        "refused",
        "a tensor of a type that the delegate does not take",
        "Keep ids and masks in int32 and everything else in floating point: cast before the export.",
        _MEASURED,
        lambda op: any(t.dtype not in _TYPES for t in (*op.inputs, *op.outputs)),
    ),
    Rule(
        "refused",
        "indices that are not one-dimensional",
        "Flatten the ids to [S] before the lookup: export_tflite.profile: delegate.",
        _MEASURED,
        lambda op: op.kind in _LOOKUPS and lookup_rank(op) != 1,
    ),
    Rule(
        "refused",
        "an embedding table in fp16",
        "Give the recipe options: {embeddings: int8} (or float).",
        _RECIPES,
        _half_table,
    ),
    Rule(
        "refused",
        "a sum of more than two tensors",
        "Add them two by two.",
        _MEASURED,
        lambda op: op.kind == "ADD_N" and len(op.inputs) > 2,
    ),
    Rule(
        "refused",
        "a slice that drops an axis",
        "Take the row with SLICE, which keeps the rank, and reshape afterwards: export_tflite.profile: delegate.",
        _MEASURED,
        lambda op: op.kind == "STRIDED_SLICE" and bool(op.options.get("shrinkAxisMask")),
    ),
    Rule(
        "refused",
        "a computed tensor without dimensions beside one that has some",
        "Keep the reduced dimensions (keep_dims), or reshape it.",
        _MEASURED,
        lambda op: op.kind != "RESHAPE" and _scalar_beside_a_tensor(op),
    ),
    Rule(
        "refused",
        "a tensor of more than four dimensions",
        "Fold the batch into another dimension: it is 1.",
        _MEASURED,
        lambda op: any(len(shape) > 4 for shape in computed_shapes(op)),
    ),
)
_WRONG = (
    Rule(
        "wrong",
        "a tensor [S, H] beside a constant of several rows: the first row is used for all, silently",
        "Reshape to [1, S, H] before the operator, as export_tflite does.",
        f"{_MEASURED}; pocketbert/export/token_axis.py",
        _flat_beside_rows,
    ),
    Rule(
        "wrong",
        "the parts of a SPLIT, put together again, keep the old order, silently",
        "Cut the parts with SLICE, or compute them by separate operators.",
        _MEASURED,
        # Where one part at most is read by a CONCATENATION they come out right: export_tflite's graphs rely on it.
        lambda op: op.kind == "SPLIT" and op.read_by.count("CONCATENATION") > 1,
    ),
)
_FATAL = (
    Rule(
        "fatal",
        "a custom operator: the runtime cannot load the file",
        "Convert without custom and TensorFlow operators (allow_custom_ops, SELECT_TF_OPS).",
        "tests/delegation/test_foreign.py, ai-edge-litert 2.3.0, 2026-11-20",
        lambda op: op.kind.startswith("CUSTOM"),
    ),
    Rule(
        "fatal",
        "a product of a tensor with itself: the runtime aborts",
        "Compute the second operand separately, by another layer or a multiplication by 1.",
        _MEASURED,
        lambda op: op.kind == "BATCH_MATMUL" and len(set(op.input_ids)) < len(op.input_ids),
    ),
    Rule(
        "fatal",
        "an embedding table with a scale a block: the runtime aborts",
        "Give the recipe options: {embeddings: int4_row} (a scale a row), or int8.",
        _RECIPES,
        lambda op: _blocks(op, "EMBEDDING_LOOKUP"),
    ),
    Rule(
        "fatal",
        "weights with a scale a block: the runtime crashes or computes them wrongly",
        "Give the recipe options: {block_size: 0}, a scale a channel.",
        _RECIPES,
        lambda op: _blocks(op, "FULLY_CONNECTED"),
    ),
    Rule(
        "fatal",
        "int8 weights behind a DEQUANTIZE: the delegate fails as a whole",
        "Quantize with dynamic_wi8_afp32: the GPU computes it in floating point all the same.",
        _RECIPES,
        lambda op: weights_stored(op) in ("int8", "int4", "uint8"),
    ),
)

LITERT = Profile("litert-2.3", (*_FATAL, *_REFUSED, *_WRONG), measurable=True)

"""What GPU delegates refuse, as rules over single operators, versioned by profile and each with its source."""

from collections.abc import Callable
from dataclasses import dataclass

from pocketbert.delegation.operators import Operator

_MEASURED = "benchmarks/delegation.py, ai-edge-litert 2.3.0 on lavapipe 25.0.7, 2026-11-20"
# Each taken and computed right, alone behind a lookup and a fully connected layer.
_TAKEN = frozenset(
    {
        *("ABS", "ADD", "ADD_N", "ARG_MAX", "BATCH_MATMUL", "CAST", "CONCATENATION", "CONV_2D", "CUMSUM", "DEQUANTIZE"),
        *("DIV", "ELU", "EMBEDDING_LOOKUP", "EXP", "FLOOR", "FULLY_CONNECTED", "GATHER", "GELU", "GREATER"),
        *("HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "MAXIMUM", "MEAN", "MINIMUM", "MUL", "NEG", "PAD", "POW"),
        *("REDUCE_MAX", "RELU", "RELU6", "RESHAPE", "REVERSE_V2", "RSQRT", "SELECT_V2", "SLICE", "SOFTMAX", "SPLIT"),
        *("SQRT", "SQUARE", "SQUARED_DIFFERENCE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TILE", "TRANSPOSE"),
    }
)
_TYPES = frozenset({"float32", "float16", "int32", "int8", "uint8", "int4", "bool"})


@dataclass(frozen=True)
class Rule:
    """A reason to leave an operator to the CPU, and the rewrite that cures it."""

    reason: str
    hint: str
    source: str
    applies: Callable[[Operator], bool]


@dataclass(frozen=True)
class Profile:
    """A delegate's rules: the first one that applies to an operator is why it is refused."""

    name: str
    rules: tuple[Rule, ...]
    # Taken by the delegate, and computed wrongly or not at all.
    hazards: tuple[Rule, ...]


def _indices(operator: Operator) -> int:
    """Rank of a lookup's indices."""
    position = {"GATHER": 1, "EMBEDDING_LOOKUP": 0}[operator.kind]
    return len(operator.inputs[position].shape)


def _computed(operator: Operator) -> list[tuple[int, ...]]:
    return [tensor.shape for tensor in (*operator.inputs, *operator.outputs) if not tensor.constant]


def _flat_beside_rows(operator: Operator) -> bool:
    """A computed [S, H] joined elementwise with a constant of several rows."""
    if operator.kind not in ("ADD", "MUL", "SUB") or len(operator.inputs) != 2:
        return False
    return any(
        not one.constant and len(one.shape) == 2 and other.constant and len(other.shape) >= 2 and other.shape[-2] > 1
        for one, other in (operator.inputs, operator.inputs[::-1])
    )


LITERT = Profile(
    "litert-2.3",
    rules=(
        Rule(
            "an operator that the delegate does not take, or that was never tried",
            "Express it by others, or leave it out of the exported graph.",
            _MEASURED,
            lambda op: op.kind not in _TAKEN,
        ),
        Rule(
            "a tensor of a type that the delegate does not take",
            "Keep ids and masks in int32 and everything else in floating point: cast before the export.",
            _MEASURED,
            lambda op: any(t.dtype not in _TYPES for t in (*op.inputs, *op.outputs)),
        ),
        Rule(
            "indices that are not one-dimensional",
            "Flatten the ids to [S] before the lookup, as export_tflite does.",
            _MEASURED,
            lambda op: op.kind in ("GATHER", "EMBEDDING_LOOKUP") and _indices(op) != 1,
        ),
        Rule(
            "a sum of more than two tensors",
            "Add them two by two.",
            _MEASURED,
            lambda op: op.kind == "ADD_N" and len(op.inputs) > 2,
        ),
        Rule(
            "a slice that drops an axis",
            "Take the row with SLICE, which keeps the rank, and reshape afterwards.",
            _MEASURED,
            lambda op: op.kind == "STRIDED_SLICE" and bool(op.options.get("shrinkAxisMask")),
        ),
        Rule(
            "a computed tensor without dimensions",
            "Keep the reduced dimensions (keep_dims).",
            _MEASURED,
            lambda op: () in _computed(op),
        ),
        Rule(
            "a tensor of more than four dimensions",
            "Fold the batch into another dimension: it is 1.",
            _MEASURED,
            lambda op: any(len(shape) > 4 for shape in _computed(op)),
        ),
    ),
    hazards=(
        Rule(
            "a tensor [S, H] beside a constant of several rows: the first row is used for all, silently",
            "Reshape to [1, S, H] before the operator, as export_tflite does.",
            f"{_MEASURED}; pocketbert/export/token_axis.py",
            _flat_beside_rows,
        ),
        Rule(
            "a product of a tensor with itself: the runtime aborts",
            "Compute the second operand separately, by another layer or a multiplication by 1.",
            _MEASURED,
            lambda op: op.kind == "BATCH_MATMUL" and len(set(op.input_ids)) < len(op.input_ids),
        ),
        Rule(
            "the parts of a SPLIT come out wrong, silently",
            "Cut the parts with SLICE, or compute them by separate operators.",
            _MEASURED,
            lambda op: op.kind == "SPLIT",
        ),
    ),
)

PROFILES = {profile.name: profile for profile in (LITERT,)}

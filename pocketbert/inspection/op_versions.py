"""The lowest TFLite runtime that knows each version of an operator.

The facts are those of LiteRT's tflite/tools/versioning/runtime_version.cc (github.com/google-ai-edge/LiteRT, commit
05215c2; before 2024 tensorflow/lite/tools/versioning in TensorFlow), restricted to operators that BERT-family graphs
use. An operator or a version that is not here is unknown, never taken as harmless.
"""

from dataclasses import dataclass

from pocketbert.errors import ParamsError
from pocketbert.inspection.graph import OpUse

# Operator -> the lowest runtime of its versions 1, 2, 3, ...; "-" where a version was never released.
_TABLE = {
    "ABS": "1.13 2.4 2.5 2.6 2.12",
    "ADD": "1.5 1.14 2.4 2.6 2.13",
    "ADD_N": "1.14",
    "ARG_MAX": "1.9 1.14 2.9",
    "BATCH_MATMUL": "2.3 2.3 2.4 2.5",
    "BROADCAST_ARGS": "2.6",
    "BROADCAST_TO": "- 2.5 2.5",
    "CAST": "1.5 2.7 2.8 2.9 2.12 2.15 2.17",
    "CONCATENATION": "1.5 1.14 2.3 2.14",
    "CONV_2D": "1.5 1.14 1.14 2.3 2.4 2.9 2.11 2.15",
    "CUMSUM": "2.4",
    "DEQUANTIZE": "1.13.1 1.14 1.15 2.2 2.7 2.18",
    "DIV": "1.6 2.3",
    "EMBEDDING_LOOKUP": "1.13 1.14 1.14 2.18",
    "EQUAL": "1.14 1.14 2.3 2.13",
    "EXP": "1.7 2.12",
    "EXPAND_DIMS": "1.10",
    "FILL": "1.13 2.3 2.5 2.12",
    "FLOOR_DIV": "1.14 1.14 2.13",
    "FLOOR_MOD": "1.13 2.13",
    "FULLY_CONNECTED": "1.5 1.10 1.14 1.14 2.0 2.1 2.3 2.3 2.3 2.11 2.15 2.17 2.18",
    "GATHER": "1.6 1.14 1.15 2.4 2.5 2.13 2.15",
    "GATHER_ND": "1.14 2.3 2.5 2.13 2.16",
    "GELU": "2.9 2.9",
    "GREATER": "1.14 1.14",
    "GREATER_EQUAL": "1.14 1.14 2.13",
    "LEAKY_RELU": "1.13.1 2.3",
    "LESS": "1.14 1.14 2.13",
    "LESS_EQUAL": "1.14 1.14",
    "LOGICAL_AND": "1.11",
    "LOGICAL_NOT": "1.11",
    "LOGICAL_OR": "1.11",
    "LOGISTIC": "1.14 1.14 2.3",
    "LOG_SOFTMAX": "1.14 1.14",
    "MAXIMUM": "1.14 1.14 2.3 2.3",
    "MEAN": "1.6 1.14 2.4",
    "MINIMUM": "1.14 1.14 2.3 2.3",
    "MUL": "1.5 1.14 1.15 2.3 2.6 2.11 2.13",
    "NEG": "1.9",
    "NOT_EQUAL": "1.14 1.14 2.3",
    "ONE_HOT": "1.11",
    "PACK": "1.11 1.14 2.3 2.13",
    "PAD": "1.5 1.14 2.4 2.6",
    "PADV2": "1.9 1.14 2.4 2.6",
    "POW": "1.10",
    "QUANTIZE": "1.14 1.15 2.7",
    "RANGE": "1.13 2.14",
    "REDUCE_MAX": "1.11 1.14 2.5",
    "RELU": "1.5 2.1 2.5",
    "RELU6": "1.5 1.14 2.5",
    "RESHAPE": "1.5",
    "RSQRT": "1.10 2.5 2.15",
    "SELECT": "1.14 1.14 2.12 2.12",
    "SELECT_V2": "2.2 2.12",
    "SHAPE": "1.10",
    "SLICE": "1.14 1.14 1.14 2.4 2.5 2.14",
    "SOFTMAX": "1.5 1.14 2.3",
    "SPLIT": "1.5 1.14 1.14 2.3",
    "SPLIT_V": "1.13.1 2.3",
    "SQRT": "1.10",
    "SQUARE": "1.12",
    "SQUARED_DIFFERENCE": "1.13.1 2.5",
    "SQUEEZE": "1.6 2.5",
    "STABLEHLO_COMPOSITE": "2.17",
    "STRIDED_SLICE": "1.6 1.14 2.1 2.2 2.5 2.6 2.14 2.14",
    "SUB": "1.6 1.14 2.3 2.4 2.4",
    "SUM": "1.10 1.15",
    "TANH": "1.14 1.14 2.3",
    "TILE": "1.10.1 2.2 2.8",
    "TRANSPOSE": "1.6 1.14 1.15 2.3 2.4 2.12 2.14.4",
    "UNPACK": "1.11 1.14 2.2 2.3",
    "WHERE": "1.14 2.8",
}
MINIMUM_RUNTIME = {
    (op, version): runtime
    for op, runtimes in _TABLE.items()
    for version, runtime in enumerate(runtimes.split(), 1)
    if runtime != "-"
}
Version = tuple[int, ...]


@dataclass(frozen=True)
class OpNeed:
    """An operator of a file and what it asks of the runtime."""

    use: OpUse
    # None where the table does not know this operator or this version of it.
    runtime: str | None
    # True, False, or None where it cannot be told or no target was given.
    too_old: bool | None = None
    note: str = ""


def parse_version(text: str) -> Version:
    """(2, 13) of "2.13" or "2.13.0"; raises ParamsError."""
    try:
        numbers = tuple(int(part) for part in text.split("."))
    except ValueError:
        numbers = ()
    if not 2 <= len(numbers) <= 3 or min(numbers) < 0:
        raise ParamsError(f"{text!r} is not the version of a runtime", "Give one such as 2.13 or 2.13.0.")
    return numbers + (0,) * (3 - len(numbers))


def op_need(use: OpUse, target: Version | None) -> OpNeed:
    """What one operator needs, judged against a target runtime if there is one."""
    if use.custom:
        return OpNeed(use, None, None if target is None else True, "custom op: the runtime must register its kernel")
    if use.unlisted:
        # Whatever it needs, int4 in this operator came with this runtime.
        least = MINIMUM_RUNTIME["FULLY_CONNECTED", 10]
        too_old = True if target is not None and target < parse_version(least) else None
        return OpNeed(use, None, too_old, f"its int4 or blockwise weights are in no table; {least} at the least")
    runtime = MINIMUM_RUNTIME.get((use.op, use.version or 1))
    if runtime is not None:
        return OpNeed(use, runtime, None if target is None else target < parse_version(runtime))
    known = [(v, r) for (op, v), r in MINIMUM_RUNTIME.items() if op == use.op]
    if not known:
        return OpNeed(use, None, None, "not in the table of operators: its lowest runtime is unknown")
    newest, least = max(known)
    if (use.version or 1) < newest:
        return OpNeed(use, None, None, f"version {use.version} was never released")
    note = f"version {use.version} is newer than the table, which ends at version {newest} (runtime {least})"
    # A later version cannot have come with an earlier runtime.
    too_old = True if target is not None and target < parse_version(least) else None
    return OpNeed(use, None, too_old, note)


def lowest_runtime(needs: list[OpNeed]) -> str | None:
    """The lowest runtime that knows every operator of the table; None where it knows none of them."""
    known = [need.runtime for need in needs if need.runtime is not None]
    return max(known, key=parse_version, default=None)

"""What GPU delegates refuse or do wrong, as rules over single operators: versioned by profile, each with its source."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pocketbert.delegation.operators import Operator

# refused: it runs on the CPU; wrong: it is taken and computed wrongly; fatal: the delegate fails or the process aborts.
Effect = Literal["refused", "wrong", "fatal"]


@dataclass(frozen=True)
class Rule:
    """What becomes of an operator, why, and the rewrite that cures it."""

    effect: Effect
    reason: str
    hint: str
    source: str
    applies: Callable[[Operator], bool]


@dataclass(frozen=True)
class Profile:
    """A delegate's rules: the first one that applies to an operator counts."""

    name: str
    rules: tuple[Rule, ...]
    # Whether this machine's runtime is the one that the rules describe.
    measurable: bool


def computed_shapes(operator: Operator) -> list[tuple[int, ...]]:
    """Shapes of the inputs and outputs that are no constants."""
    return [tensor.shape for tensor in (*operator.inputs, *operator.outputs) if not tensor.constant]


def lookup_rank(operator: Operator) -> int:
    """Rank of a lookup's indices."""
    position = {"GATHER": 1, "EMBEDDING_LOOKUP": 0}[operator.kind]
    return len(operator.inputs[position].shape)


def weights_stored(operator: Operator) -> str:
    """The type in which the weights of a FULLY_CONNECTED lie behind a DEQUANTIZE; "" where they lie before it."""
    return operator.inputs[1].stored if operator.kind == "FULLY_CONNECTED" and len(operator.inputs) > 1 else ""

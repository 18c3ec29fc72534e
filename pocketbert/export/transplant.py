"""The only way by which a torch parameter gets into our TensorFlow graph, and the proof that it arrived.

A layer of the graph asks for its weights by their torch names, so no TensorFlow variable exists without its
torch parameter and nothing can be left at a random initial value. Layouts are those of torch: a linear layer
keeps its weight as [out, in], which is also how TFLite stores it, so nothing is transposed.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pocketbert.errors import ExportError, ProofError
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.numerics.tensors import used_parameters

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Transform:
    """How a variable's value follows from its torch parameter and from `operands`, other parameters."""

    formula: str = "identity"
    function: Callable[..., Array] = lambda value: value
    operands: tuple[str, ...] = ()


IDENTITY = Transform()


def rows(start: int, stop: int) -> Transform:
    """The rows [start, stop) of a table."""
    return Transform(f"rows[{start}:{stop}]", lambda table: table[start:stop])


@dataclass(frozen=True)
class Transplanted:
    """One line of transplant.json: a torch parameter and the one variable that it became."""

    torch_name: str
    tf_name: str
    transform: str
    operands: tuple[str, ...]
    shape: tuple[int, ...]
    sha256: str
    equal: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


class Transplant:
    """Hands out each parameter of a torch model once, as a TensorFlow variable of the same name."""

    def __init__(self, model: PocketBertClassifier) -> None:
        self._model = model
        self._state = model.state_dict()
        self._transforms: dict[str, Transform] = {}
        self._variables: dict[str, tf.Variable] = {}

    def module(self, name: str) -> Any:
        """The torch module of that name, for what is no parameter: an epsilon, a slope, its type."""
        return self._model.get_submodule(name)

    def variable(self, name: str, transform: Transform = IDENTITY) -> tf.Variable:
        """The torch parameter `name` as a float32 variable; raises ProofError when asked twice, ExportError."""
        if name in self._variables:
            raise ProofError(f"parameter {name} was asked for twice", "Map it to one variable in pocketbert/export.")
        self._transforms[name] = transform
        self._variables[name] = tf.Variable(self._expected(name), trainable=False, name=name)
        return self._variables[name]

    def prove(self, captured: Iterable[tf.Variable]) -> list[Transplanted]:
        """Prove the mapping bit by bit; `captured` are the variables that the traced graph really reads.

        Raises ProofError where a parameter is unused, a variable does not reach the graph, or a value differs.
        """
        names = {id(variable): name for name, variable in self._variables.items()}
        reached = {names.get(id(variable), f"(not transplanted) {variable.name}") for variable in captured}
        operands = {operand for name in reached & set(names.values()) for operand in self._transforms[name].operands}
        stray = sorted((reached | operands) ^ used_parameters(self._state, self._model.encoder.config))
        if stray:
            raise ProofError(
                f"{len(stray)} tensors are not matched between torch and the TensorFlow graph: {', '.join(stray[:8])}",
                "Map them in pocketbert/export, or list them as unused in pocketbert/numerics/tensors.py.",
            )
        record = [self._compare(name) for name in sorted(reached)]
        unequal = [line.torch_name for line in record if not line.equal]
        if unequal:
            raise ProofError(
                f"{len(unequal)} tensors changed on their way into the TensorFlow graph: {', '.join(unequal[:8])}",
                "This is a bug in pocketbert/export; please report it.",
            )
        return record

    def _compare(self, name: str) -> Transplanted:
        variable, transform = self._variables[name], self._transforms[name]
        value = variable.numpy()
        equal = value.tobytes() == self._expected(name).tobytes()
        digest = hashlib.sha256(value.tobytes()).hexdigest()
        tf_name = variable.name.removesuffix(":0")
        return Transplanted(name, tf_name, transform.formula, transform.operands, value.shape, digest, equal)

    def _expected(self, name: str) -> Array:
        transform = self._transforms[name]
        value = transform.function(self._parameter(name), *(self._parameter(operand) for operand in transform.operands))
        return np.ascontiguousarray(value)

    def _parameter(self, name: str) -> Array:
        if name not in self._state:
            raise ExportError(
                f"the model has no parameter {name}",
                "Its layers are not those of its model_type; docs/conversion.md says how to add a family.",
            )
        value: Array = self._state[name].detach().cpu().numpy()
        if value.dtype != np.float32:
            raise ExportError(f"parameter {name} is {value.dtype}", "Load the model in float32 before the export.")
        return value

"""The only way by which a torch parameter gets into our TensorFlow graph, and the proof that it arrived.

A layer of the graph asks for its weights by their torch names, so no TensorFlow variable exists without its
torch parameter and nothing can be left at a random initial value. Layouts are those of torch: a linear layer
keeps its weight as [out, in], which is also how TFLite stores it, so nothing is transposed. Where fusions rewrote the
weights (numerics/fusion.py), the graph gets the fused tensors, and the proof follows them back to torch's own.
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
from pocketbert.numerics.fusion import Weights
from pocketbert.numerics.tensors import used_parameters
from pocketbert.params import GraphVariants

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
    """Hands out each tensor of `weights` (torch's own parameters where None) once, as a TensorFlow variable.

    `dtype` is the graph's: float64 for a proof of what was fused; `variants` the form that layers are to take.
    `portable`: of operations that the GPU delegates of TensorFlow Lite 2.x take as well, whatever the variants say.
    """

    def __init__(
        self,
        model: PocketBertClassifier,
        weights: Weights | None = None,
        dtype: tf.DType = tf.float32,
        variants: GraphVariants | None = None,
        *,
        portable: bool = False,
    ) -> None:
        self._model, self.dtype, self.variants = model, dtype, variants or GraphVariants()
        self.portable = portable
        self.weights = weights or Weights(parameters(model))
        self._transforms: dict[str, Transform] = {}
        self._variables: dict[str, tf.Variable] = {}
        self._tables: set[str] = set()
        self._on_host: set[str] = set()

    def module(self, name: str) -> Any:
        """The torch module of that name, for what is no parameter: an epsilon, a slope, its type."""
        return self._model.get_submodule(name)

    def has(self, name: str) -> bool:
        """Whether there is such a tensor, or a fusion has taken it away."""
        return name in self.weights

    def fused(self, fusion: str) -> bool:
        """Whether the weights went through this fusion."""
        return fusion in self.weights.fusions

    def variable(self, name: str, transform: Transform = IDENTITY) -> tf.Variable:
        """The tensor `name` as a variable; raises ProofError when asked twice, ExportError."""
        if name in self._variables:
            raise ProofError(f"parameter {name} was asked for twice", "Map it to one variable in pocketbert/export.")
        self._transforms[name] = transform
        self._variables[name] = tf.Variable(self._expected(name), trainable=False, name=name)
        return self._variables[name]

    def table(self, name: str) -> tf.Variable:
        """An embedding table, float32 in a graph of any dtype: nothing fuses it, and it is large."""
        self._tables.add(name)
        return self.variable(name)

    def host_table(self, name: str) -> Array:
        """A table that is looked up outside the graph."""
        self._on_host.add(name)
        self._transforms[name] = IDENTITY
        return self._expected(name)

    def prove(self, captured: Iterable[tf.Variable]) -> list[Transplanted]:
        """Prove the mapping bit by bit; `captured` are the variables that the traced graph really reads.

        Raises ProofError where a parameter is unused, a variable does not reach the graph, or a value differs.
        """
        names = {id(variable): name for name, variable in self._variables.items()}
        reached = {names.get(id(variable), f"(not transplanted) {variable.name}") for variable in captured}
        reached |= self._on_host
        carried = set[str]().union(*(self._sources(name) if name in self._transforms else {name} for name in reached))
        left_over = {name for name in self.weights.names() if self.weights.steps(name) and name not in reached}
        stray = sorted((carried ^ used_parameters(parameters(self._model), self._model.encoder.config)) | left_over)
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

    def _sources(self, name: str) -> frozenset[str]:
        operands = (name, *self._transforms[name].operands)
        return frozenset[str]().union(*(self.weights.sources(operand) for operand in operands))

    def _compare(self, name: str) -> Transplanted:
        expected = self._expected(name)
        value, tf_name = expected, "(host)"
        if name in self._variables:
            value = self._variables[name].numpy()
            tf_name = self._variables[name].name.removesuffix(":0")
        equal = value.tobytes() == expected.tobytes()
        digest = hashlib.sha256(value.tobytes()).hexdigest()
        formula = "+".join(self.weights.steps(name)) or self._transforms[name].formula
        operands = tuple(sorted(self._sources(name) - {name}))
        return Transplanted(name, tf_name, formula, operands, value.shape, digest, equal)

    def _expected(self, name: str) -> Array:
        transform = self._transforms[name]
        value = transform.function(self._parameter(name), *(self._parameter(operand) for operand in transform.operands))
        return np.ascontiguousarray(value)

    def _parameter(self, name: str) -> NDArray[Any]:
        if not self.has(name):
            raise ExportError(
                f"the model has no parameter {name}",
                "Its layers are not those of its model_type; docs/conversion.md says how to add a family.",
            )
        exact = self.dtype == tf.float64 and name not in self._tables
        return self.weights.exact(name) if exact else self.weights.value(name)


def parameters(model: PocketBertClassifier) -> dict[str, Array]:
    """torch's parameters and buffers by name, float32; raises ExportError for another type."""
    state = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    for name, value in state.items():
        if value.dtype != np.float32 and np.issubdtype(value.dtype, np.floating):
            raise ExportError(f"parameter {name} is {value.dtype}", "Load the model in float32 before the export.")
    return state

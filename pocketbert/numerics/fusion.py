"""Exact algebraic fusions of a classifier's weights, and the tensors that a graph holds after them.

A fusion rewrites tensors so that a graph with fewer operations computes the same function. All of them are computed in
float64 from torch's own parameters and rounded once. Export asks for the tensors, `validate` computes them again and
looks for their bits in the shipped file, so neither takes the other's word.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Exact = NDArray[np.float64]
HOST_WORDS, HOST_POSITIONS = "host.embeddings", "host.positions"


@dataclass(frozen=True)
class Basis:
    """The model's own state of a layer is `value * scale + shift` of what the fused graph holds, by channel [H]."""

    scale: Exact | None = None
    shift: Exact | None = None

    def restore(self, value: NDArray[Any]) -> NDArray[Any]:
        """A state [..., H] in the model's own basis, in the value's dtype."""
        scaled = value if self.scale is None else value * self.scale.astype(value.dtype)
        return scaled if self.shift is None else scaled + self.shift.astype(value.dtype)


@dataclass(frozen=True)
class _Tensor:
    value: Exact | Array
    sources: frozenset[str]
    steps: tuple[str, ...]


class Weights:
    """Parameters of a model on their way into a graph: torch's own until a fusion rewrites them."""

    def __init__(self, state: Mapping[str, Array], fusions: Collection[str] = ()) -> None:
        self.fusions = frozenset(fusions)
        # Layer name (numerics/layers.py) -> how its state lies in the fused graph.
        self.bases: dict[str, Basis] = {}
        self._state = dict(state)
        self._fused: dict[str, _Tensor] = {}
        self._gone: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._fused or (name in self._state and name not in self._gone)

    def names(self) -> list[str]:
        """Tensors that are left, fused ones included."""
        return sorted((set(self._state) | set(self._fused)) - self._gone)

    def raw(self, name: str) -> Array:
        """torch's own parameter, float32; raises KeyError."""
        return self._state[name]

    def exact(self, name: str) -> Exact:
        """A tensor in float64, unrounded where it was fused."""
        held = self._fused[name].value if name in self._fused else self._state[name]
        return held.astype(np.float64, copy=False)

    def value(self, name: str) -> Array:
        """A tensor as the graph holds it, float32: torch's own bits where no fusion touched it."""
        held = self._fused[name].value if name in self._fused else self._state[name]
        return held.astype(np.float32, copy=False)

    def values(self) -> dict[str, Array]:
        """Every tensor that is left, float32."""
        return {name: self.value(name) for name in self.names()}

    def width(self, name: str) -> int:
        """Size of a tensor's last axis."""
        held = self._fused[name].value if name in self._fused else self._state[name]
        return int(held.shape[-1])

    def sources(self, name: str) -> frozenset[str]:
        """The torch parameters that a tensor follows from."""
        return self._fused[name].sources if name in self._fused else frozenset({name})

    def steps(self, name: str) -> tuple[str, ...]:
        """The fusions that made a tensor, in order; empty for torch's own."""
        return self._fused[name].steps if name in self._fused else ()

    def put(self, name: str, value: Exact, step: str, operands: Iterable[str] = ()) -> None:
        """Set a tensor that follows from its old value, if it had one, and from `operands`."""
        read = [*operands, *([name] if name in self else [])]
        sources = frozenset[str]().union(*(self.sources(operand) for operand in read))
        steps = dict.fromkeys(s for operand in read for s in self.steps(operand))
        self._fused[name] = _Tensor(np.asarray(value, np.float64), sources, (*(s for s in steps if s != step), step))
        self._gone.discard(name)

    def drop(self, *names: str) -> None:
        """Take tensors out that live on in others."""
        for name in names:
            self._fused.pop(name, None)
            self._gone.add(name)

    def rename(self, name: str, new: str, step: str) -> None:
        """Give a tensor another name, its bits untouched."""
        held = self._fused[name].value if name in self._fused else self._state[name]
        self._fused[new] = _Tensor(held, self.sources(name), (*self.steps(name), step))
        self.drop(name)

    def add_input_shift(self, linear: str, shift: Exact, step: str, source: str) -> None:
        """A linear layer whose input lost `shift`: b + W shift."""
        moved = self.exact(f"{linear}.bias") + self.exact(f"{linear}.weight") @ shift
        self.put(f"{linear}.bias", moved, step, [f"{linear}.weight", source])

    def scale_input(self, linear: str, scale: Exact, step: str, sources: Iterable[str]) -> None:
        """A linear layer whose input was divided by `scale`: W diag(scale)."""
        self.put(f"{linear}.weight", self.exact(f"{linear}.weight") * scale, step, sources)

    def scale_output(self, linear: str, scale: Exact, step: str, sources: Iterable[str]) -> None:
        """A linear layer whose output is to be divided by `scale`."""
        sources = tuple(sources)
        self.put(f"{linear}.weight", self.exact(f"{linear}.weight") / scale[:, None], step, sources)
        self.put(f"{linear}.bias", self.exact(f"{linear}.bias") / scale, step, sources)

    def shift_output(self, linear: str, shift: Exact, step: str, sources: Iterable[str]) -> None:
        """Add a constant to a linear layer's output."""
        self.put(f"{linear}.bias", self.exact(f"{linear}.bias") + shift, step, sources)

    def split_sum(self, linear: str, parts: int, step: str) -> None:
        """A linear layer's sum in parts: its weight [out, in] becomes weight.parts [parts, out, in / parts]."""
        source = f"{linear}.weight"
        self.put(f"{source}.parts", np.stack(np.split(self.exact(source), parts, axis=1)), step, [source])
        self.drop(source)

    def stack(self, name: str, parts: Collection[str], step: str) -> None:
        """One linear layer of several that read the same input, their outputs one after another."""
        for kind in ("weight", "bias"):
            operands = [f"{part}.{kind}" for part in parts]
            self.put(f"{name}.{kind}", np.concatenate([self.exact(operand) for operand in operands]), step, operands)
            self.drop(*operands)

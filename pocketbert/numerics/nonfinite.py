"""The first NaN or infinity of a file that runs: which tensor, which operator made it, and out of what."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pocketbert.numerics.dump import Array, Row, TensorDump
from pocketbert.numerics.places import Places


@dataclass(frozen=True)
class NonFinite:
    """The first tensor in the order of execution that holds a NaN or an infinity; constants come before all."""

    tensor: str
    # "NaN", "+inf" or "-inf".
    kind: str
    count: int
    op: str
    node: str
    layer: str
    cause: str
    # Kind and number of the row, "" and 0 for a constant.
    row: str
    number: int
    # What the producer read: name, cause and range of each float input.
    inputs: tuple[str, ...]

    def __str__(self) -> str:
        place = ", ".join(filter(None, (self.cause, self.layer)))
        if not self.row:
            return f"the {place} {self.tensor} is {self.kind} ({self.op} {self.node} reads it)"
        origin = f" from {'; '.join(self.inputs)}" if self.inputs else ""
        return (
            f"the first {self.kind} is in {self.tensor} ({place}), made by {self.op} {self.node}{origin} "
            f"on row {self.number} ({self.row})"
        )


def first_nonfinite(dump: TensorDump, rows: Iterable[Row]) -> NonFinite | None:
    """Run the rows up to the first one with a NaN or an infinity in any tensor; None where there is none.

    A constant that is not finite is to blame where it is read by the first such tensor's producer; an infinite one that
    no computed tensor shows does no harm.
    """
    places = Places(dump.graph, dump.outputs)
    constants = {value: _Extent.of(array) for value, array in dump.constants()}
    for number, (kind, arrays) in enumerate(rows):
        seen = dict(constants)
        for value, array in dump.run(arrays):
            seen[value] = _Extent.of(array)
            if seen[value].kind:
                node = places.producers[value]
                culprit = next((v for v in node.inputs if v in constants and constants[v].kind), value)
                return _describe(dump, places, culprit, seen, (kind, number))
    return None


@dataclass(frozen=True)
class _Extent:
    """Range of an array, and how it is not finite."""

    minimum: float
    maximum: float
    kind: str = ""
    count: int = 0

    @classmethod
    def of(cls, values: Array) -> "_Extent":
        if not values.size:
            return cls(0.0, 0.0)
        lowest, highest = float(values.min()), float(values.max())
        if math.isfinite(highest - lowest):
            return cls(lowest, highest)
        count = int(values.size - np.isfinite(values).sum())
        # A NaN says more than an infinity.
        kind = "NaN" if np.isnan(values).any() else "+inf" if np.isposinf(values).any() else "-inf"
        return cls(lowest, highest, kind, count)


def _describe(
    dump: TensorDump, places: Places, value: str, seen: Mapping[str, _Extent], row: tuple[str, int]
) -> NonFinite:
    node = places.node_of(value)
    constant = value in dump.graph.constants
    read = [v for v in node.inputs if v in seen] if node and not constant else []
    return NonFinite(
        tensor=dump.label(value),
        kind=seen[value].kind,
        count=seen[value].count,
        op=node.op if node else "",
        node=node.name if node else "",
        layer=places.layer(value),
        cause=places.cause(value),
        row="" if constant else row[0],
        number=0 if constant else row[1],
        inputs=tuple(
            f"{dump.label(v)} ({places.cause(v)}) [{seen[v].minimum:.4g}, {seen[v].maximum:.4g}]" for v in read
        ),
    )

"""How long the tensors of a graph live, and what the constants that its operators read cost in memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pocketbert.inspection.lookups import LOOKUP_OPS
from pocketbert.partition.model import Graph, Operator

# Their weights are packed into a second copy by XNNPACK, in the order in which it multiplies.
PACKED_OPS = frozenset({"FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})
# Bias, scale and sum of each output channel lie between the packed weights.
_PACKED_CHANNEL = 16
# A table that is dequantized first is expanded as a whole, and for the time of that what is stored costs 1.9 to 2.15 of
# its size (two fp16 models, ai-edge-litert 2.3.0).
_EXPANDED = 2.2
# The kernel maps a file's pages by so many bytes around the one that is touched (fault_around_bytes).
_AROUND = 65536


@dataclass(frozen=True)
class Step:
    """An operator that works on the model's input, with the constants behind it.

    `prepared` are the operators that work on constants alone (the dequantization of stored weights) and that this
    step reads the results of: they go wherever it goes.
    """

    operator: Operator
    prepared: tuple[Operator, ...]
    # Computed tensors that it reads and writes.
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    # Stored tensors that it needs -> resident bytes while they are in use.
    resident: dict[int, int]


class Schedule:
    """The steps of a graph in order of execution, and the tensors that live between them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.steps = tuple(_steps(graph))
        self._produced = {tensor: k for k, step in enumerate(self.steps) for tensor in step.writes}
        self._consumed = {tensor: k for k, step in enumerate(self.steps) for tensor in step.reads}
        # Results live to the end.
        self._consumed |= {tensor: len(self.steps) for tensor in graph.outputs}

    @cached_property
    def lives(self) -> dict[int, tuple[int, int]]:
        """Computed tensor -> first and last step at which it must be in memory; the model's input lives from step 0."""
        tensors = {*self._produced, *self.graph.inputs}
        last = len(self.steps) - 1
        return {
            tensor: (
                self._produced.get(tensor, 0),
                min(last, self._consumed.get(tensor, self._produced.get(tensor, 0))),
            )
            for tensor in tensors
        }

    @cached_property
    def live_bytes(self) -> list[int]:
        """Bytes of the tensors that live during each step, those that it reads and writes included."""
        change = [0] * (len(self.steps) + 1)
        for tensor, (first, last) in self.lives.items():
            change[first] += self.size(tensor)
            change[last + 1] -= self.size(tensor)
        live, total = [], 0
        for delta in change[:-1]:
            total += delta
            live.append(total)
        return live

    def crossing(self, step: int) -> list[int]:
        """Tensors that are known before `step` and needed at it or later, the model's inputs and results included."""
        return [
            tensor
            for tensor in (*self.graph.inputs, *self._produced)
            if self._produced.get(tensor, -1) < step <= self._consumed.get(tensor, -1)
        ]

    def crossing_bytes(self, step: int) -> int:
        """Bytes of `crossing`."""
        return self.total(self.crossing(step))

    def size(self, tensor: int) -> int:
        """Bytes of a tensor's values."""
        return self.graph.tensors[tensor].size_bytes

    def total(self, tensors: Iterable[int]) -> int:
        """Bytes of several."""
        return sum(map(self.size, tensors))


def arena_bytes(lives: Iterable[tuple[int, int, int]], alignment: int = 64) -> int:
    """Bytes of one arena for tensors (size, first step, last step), each in the lowest gap that is free while it lives.

    Largest first ("greedy by size", Pisarchyk and Lee 2020, arXiv:2001.03288, section 5.1), as LiteRT and XNNPACK
    place theirs. Never less than the largest sum of tensors that live together.
    """
    placed: list[tuple[int, int, int, int]] = []
    for size, first, last in sorted(lives, key=lambda life: (-life[0], life[1])):
        needed, offset = -(-size // alignment) * alignment, 0
        for start, end, other_first, other_last in sorted(placed):
            if other_first > last or other_last < first or end <= offset:
                continue
            if start - offset >= needed:
                break
            offset = end
        placed.append((offset, offset + needed, first, last))
    return max((end for _, end, *_ in placed), default=0)


def _steps(graph: Graph) -> Iterable[Step]:
    computed = {*graph.inputs, *(t for operator in graph.operators for t in operator.outputs)}
    # Tensor that follows from constants alone -> the operator that makes it.
    prepared: dict[int, Operator] = {}
    for operator in graph.operators:
        reads = tuple(t for t in operator.inputs if t in computed and t not in prepared)
        if operator.inputs and not reads:
            prepared |= dict.fromkeys(operator.outputs, operator)
            continue
        constants = [t for t in operator.inputs if t not in reads]
        resident = _resident(graph, operator, constants, prepared)
        yield Step(operator, _behind(operator.inputs, prepared), reads, operator.outputs, resident)


def _behind(tensors: Sequence[int], prepared: dict[int, Operator]) -> tuple[Operator, ...]:
    """The operators on constants alone that make `tensors`, in order."""
    found: dict[int, Operator] = {}
    queue = list(tensors)
    while queue:
        maker = prepared.get(queue.pop())
        if maker is not None and maker.index not in found:
            found[maker.index] = maker
            queue += maker.inputs
    return tuple(found[index] for index in sorted(found))


def _resident(
    graph: Graph, operator: Operator, constants: Sequence[int], prepared: dict[int, Operator]
) -> dict[int, int]:
    """Resident bytes of the constants of an operator: pages of the file that are read, and copies of them."""
    resident: dict[int, int] = {}
    table = LOOKUP_OPS.get(operator.kind, (None, None))[0]
    for tensor in constants:
        size, maker = graph.tensors[tensor].size_bytes, prepared.get(tensor)
        # What is made of constants is held as a whole.
        copy = size if maker or operator.kind in PACKED_OPS else 0
        if operator.kind in PACKED_OPS:
            copy += _PACKED_CHANNEL * graph.tensors[tensor].shape[0]
        stored = {t for op in _behind([tensor], prepared) for t in op.inputs if graph.tensors[t].stored}
        read = sum(graph.tensors[t].size_bytes for t in stored) if maker else size
        if table is not None and tensor == operator.inputs[table]:
            read = int(_EXPANDED * read) if maker else _rows_touched(graph, operator, tensor)
        resident[tensor] = read + copy
    return resident


def _rows_touched(graph: Graph, operator: Operator, table: int) -> int:
    """Bytes of a memory-mapped table that a lookup makes resident: the rows that it reads, and what surrounds them."""
    indices = graph.tensors[operator.inputs[1 - operator.inputs.index(table)]]
    rows = 1
    for size in indices.shape:
        rows *= size
    size, row = graph.tensors[table].size_bytes, graph.tensors[table].size_bytes // graph.tensors[table].shape[0]
    return min(size, rows * (row + _AROUND))

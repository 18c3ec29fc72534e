"""Which tensors of a float32 file do not fit into half precision, where they are and why: before anything is converted.

Beyond HALF_MAX a value becomes infinite; far below HALF_NORMAL it loses its digits and then itself. A loss counts only
where it reaches a result: an epsilon of 1e-12 that is added to a variance of 1 may as well be 0.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pocketbert.inspection.graph import Node
from pocketbert.numerics.dump import Array, Row, TensorDump
from pocketbert.numerics.half import HALF_MAX, LOSS_MAX, SMALLEST_KEPT, HalfRange
from pocketbert.numerics.places import ADDITIVE, DIVISIONS, MEANS, MOVES, NORMS, PRODUCTS, ROOTS, Places

WIDEST = 5


@dataclass(frozen=True)
class Finding:
    """A tensor that half precision cannot hold, or (harmless) whose loss reaches no result."""

    tensor: str
    constant: bool
    # Producer; for a constant its first reader.
    op: str
    node: str
    layer: str
    cause: str
    # overflow, sum overflow (inside a mean), underflow, not finite
    problem: str
    minimum: float | None
    maximum: float | None
    smallest: float | None
    # Kind of the row with the largest |value|, "" for a constant.
    row: str
    # The earlier finding that this one follows from.
    follows: str | None

    def __str__(self) -> str:
        place = ", ".join(filter(None, (self.cause, self.layer, f"{'read by ' if self.constant else ''}{self.op}")))
        size = "NaN or infinite" if self.minimum is None else f"[{self.minimum:.4g}, {self.maximum:.4g}]"
        if self.problem == "underflow":
            size = f"smallest {self.smallest:.3g}"
        return f"{self.problem}: {self.tensor} ({place}) {size}{f' on a {self.row} row' if self.row else ''}"


@dataclass(frozen=True)
class RangeReport:
    """The scan of one file."""

    path: str
    rows: dict[str, int]
    tensors: int
    constants: int
    # Unsafe in fp16, in the order of execution, constants first.
    findings: tuple[Finding, ...]
    # Lost in fp16 without effect on these rows.
    harmless: tuple[Finding, ...]
    # The largest activations that fit: name, cause, largest |value|, HALF_MAX over it.
    widest: tuple[dict[str, Any], ...]

    @property
    def safe(self) -> bool:
        """Whether every tensor fits on these rows."""
        return not self.findings

    @property
    def roots(self) -> tuple[Finding, ...]:
        """Findings that follow from no other."""
        return tuple(finding for finding in self.findings if finding.follows is None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"safe": self.safe, "half_max": HALF_MAX}


def scan_ranges(path: str, dump: TensorDump, rows: Iterable[Row]) -> RangeReport:
    """Run the rows and judge every float tensor and constant; raises DeviceError where the file does not run."""
    scan = _Scan(dump)
    for kind, arrays in rows:
        scan.run(kind, arrays)
    return scan.report(path)


class _Scan:
    def __init__(self, dump: TensorDump) -> None:
        self._dump, self._places = dump, Places(dump.graph, dump.outputs)
        self._ranges: dict[str, HalfRange] = {}
        # Totals of what a mean or a norm adds up inside, by output.
        self._inside: dict[str, HalfRange] = {}
        self._rows: dict[str, int] = {}
        self._normed = {n.inputs[0]: n.outputs[0] for n in dump.graph.nodes if n.op in NORMS}
        self._means = {n.outputs[0]: n.inputs[0] for n in dump.graph.nodes if n.op in MEANS}
        self._constants = 0
        for value, array in dump.constants():
            self._ranges.setdefault(value, HalfRange()).update(array)
            self._constants += 1

    def run(self, kind: str, arrays: Sequence[Array]) -> None:
        self._rows[kind] = self._rows.get(kind, 0) + 1
        sizes = {value: array.size for value, array in zip(self._dump.graph.inputs, arrays, strict=True)}
        for value, array in self._dump.run(arrays):
            sizes[value] = array.size
            self._ranges.setdefault(value, HalfRange()).update(array, kind)
            if value in self._normed:
                centred = array.astype(np.float64) - array.mean(axis=-1, keepdims=True, dtype=np.float64)
                self._add_up(self._normed[value], np.square(centred).sum(axis=-1), kind)
            if self._means.get(value) in sizes and array.size:
                self._add_up(value, array.astype(np.float64) * (sizes[self._means[value]] / array.size), kind)

    def _add_up(self, value: str, totals: Array, kind: str) -> None:
        self._inside.setdefault(value, HalfRange()).update(totals, kind)

    def report(self, path: str) -> RangeReport:
        order = [*self._dump.graph.constants, *(v for node in self._dump.graph.nodes for v in node.outputs)]
        findings: dict[str, Finding] = {}
        harmless: list[Finding] = []
        for value in order:
            if value not in self._ranges:
                continue
            problem = self._problem(value)
            if problem == "underflow" and value not in self._divisors and self._absorbed(value):
                harmless.append(self._finding(value, problem, None))
            elif problem:
                findings[value] = self._finding(value, problem, self._follows(value, findings))
        return RangeReport(
            path, self._rows, len(self._ranges) - self._constants, self._constants,
            tuple(findings.values()), tuple(harmless), self._widest(),
        )  # fmt: skip

    def _problem(self, value: str) -> str | None:
        seen, inside = self._ranges[value], self._inside.get(value)
        if seen.nonfinite:
            return "not finite"
        if seen.overflows:
            return "overflow"
        if inside and inside.overflows:
            return "sum overflow"
        lost = seen.smallest < SMALLEST_KEPT if value in self._divisors or seen.count == 1 else False
        return "underflow" if lost or seen.denormal_loss > LOSS_MAX else None

    @cached_property
    def _divisors(self) -> set[str]:
        """Values of which every single one is divided by or rooted: none may lose its digits."""
        nodes = self._dump.graph.nodes
        rooted = {n.inputs[0] for n in nodes if n.op in ROOTS}
        return rooted | {n.inputs[1] for n in nodes if n.op in DIVISIONS}

    def _absorbed(self, value: str) -> bool:
        """Whether every reader adds the value to something so large that the loss is not seen."""
        readers = self._places.consumers.get(value, [])
        return bool(readers) and all(self._absorbs(node, value) for node in readers)

    def _absorbs(self, node: Node, value: str) -> bool:
        output = node.outputs[0]
        if node.op in MOVES:
            return self._absorbed(output)
        bias = node.op in PRODUCTS | NORMS and value in node.inputs[2:] and value not in node.inputs[:2]
        if not (node.op in ADDITIVE or bias) or output not in self._ranges:
            return False
        result = self._ranges[output]
        single = output in self._divisors and result.smallest < SMALLEST_KEPT
        return not single and result.denormal_loss <= LOSS_MAX and result.largest > 0

    def _follows(self, value: str, findings: dict[str, Finding]) -> str | None:
        node = self._places.producers.get(value)
        for parent in node.inputs if node else ():
            if parent in findings:
                return findings[parent].follows or findings[parent].tensor
        return None

    def _finding(self, value: str, problem: str, follows: str | None) -> Finding:
        inside = problem == "sum overflow"
        seen = self._inside[value] if inside else self._ranges[value]
        node, places = self._places.node_of(value), self._places
        empty = seen.minimum > seen.maximum
        return Finding(
            tensor=self._dump.label(value),
            constant=value in self._dump.graph.constants,
            op=node.op if node else "",
            node=node.name if node else "",
            layer=places.layer(value),
            cause=self._cause(value, inside),
            problem=problem,
            minimum=None if empty else seen.minimum,
            maximum=None if empty else seen.maximum,
            smallest=seen.smallest if math.isfinite(seen.smallest) else None,
            row=seen.row,
            follows=follows,
        )

    def _widest(self) -> tuple[dict[str, Any], ...]:
        computed = [(v, seen, "") for v, seen in self._ranges.items() if v not in self._dump.graph.constants]
        computed += [(v, seen, "sum inside ") for v, seen in self._inside.items()]
        fitting = [entry for entry in computed if 0 < entry[1].largest <= HALF_MAX]
        return tuple(
            {
                "tensor": f"{what}{self._dump.label(value)}",
                "cause": self._cause(value, bool(what)),
                "layer": self._places.layer(value),
                "largest": seen.largest,
                "headroom": HALF_MAX / seen.largest,
                "row": seen.row,
            }
            for value, seen, what in sorted(fitting, key=lambda entry: -entry[1].largest)[:WIDEST]
        )

    def _cause(self, value: str, inside: bool) -> str:
        """What a norm adds up inside is the variance that other graphs compute in nodes of their own."""
        node = self._places.node_of(value)
        return "LayerNorm variance" if inside and node and node.op in NORMS else self._places.cause(value)

"""The parts of a model whose harm is measured, and what a study of them found."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pocketbert.params import SensitivityParams
from pocketbert.quantize.sensitivity_graph import Operation
from pocketbert.quantize.sensitivity_trial import Trial


@dataclass(frozen=True)
class Part:
    """Operations that are quantized together, and what that did."""

    name: str
    operations: tuple[Operation, ...]
    trial: Trial | None = None


@dataclass(frozen=True)
class Cell:
    """The operations of one kind in one layer, and the bound of their harm."""

    name: str
    operations: tuple[Operation, ...]
    harm: float


@dataclass(frozen=True)
class Study:
    """What was found; `layers` and `kinds` are ranked, the most harmful one first."""

    params: SensitivityParams
    accuracy: float
    rows: int
    runs: int
    everything: Trial
    layers: list[Part]
    kinds: list[Part]
    cells: list[Cell]
    excluded: list[Cell]
    chosen: Trial

    @property
    def exclude(self) -> tuple[str, ...]:
        """The list for a recipe's option `exclude`."""
        return tuple(operation.pattern for cell in self.excluded for operation in cell.operations)

    @property
    def reason(self) -> str:
        """Why this list, in one line."""
        before = said(self.everything)
        if not self.excluded:
            return f"nothing is excluded: with everything quantized, {before} keeps the limits"
        names = ", ".join(cell.name for cell in self.excluded)
        return f"{names} stay in float: {said(self.chosen)} instead of {before}"

    def as_dict(self) -> dict[str, Any]:
        """The study as JSON."""
        out = {cell.name for cell in self.excluded}
        return {
            "params": self.params.model_dump(),
            "rows": self.rows,
            "runs": self.runs,
            "accuracy": self.accuracy,
            "everything": asdict(self.everything),
            "layers": [_as_dict(part) for part in self.layers],
            "kinds": [_as_dict(part) for part in self.kinds],
            "cells": [
                {
                    "name": cell.name,
                    "operations": len(cell.operations),
                    "harm_at_most": cell.harm if math.isfinite(cell.harm) else None,
                    "excluded": cell.name in out,
                }
                for cell in self.cells
            ],
            "exclude": list(self.exclude),
            "chosen": asdict(self.chosen),
            "reason": self.reason,
        }


def grouped(operations: Iterable[Operation], key: Callable[[Operation], str]) -> list[Part]:
    """A part for each key, in the order of the operations."""
    groups: dict[str, list[Operation]] = {}
    for operation in operations:
        groups.setdefault(key(operation), []).append(operation)
    return [Part(name, tuple(members)) for name, members in groups.items()]


def merged(parts: Sequence[Part], count: int) -> list[Part]:
    """At most `count` parts, made of neighbours."""
    if len(parts) <= count:
        return list(parts)
    edges = [len(parts) * i // count for i in range(count + 1)]
    chunks = [parts[start:end] for start, end in itertools.pairwise(edges)]
    return [
        Part(
            chunk[0].name if len(chunk) == 1 else f"{chunk[0].name} to {chunk[-1].name}",
            tuple(operation for part in chunk for operation in part.operations),
        )
        for chunk in chunks
    ]


def cells_of(layers: Sequence[Part], kinds: Sequence[Part]) -> list[Cell]:
    """The cells, the most harmful one first; among equals the one with fewer operations."""
    cells = []
    for layer in layers:
        for kind in kinds:
            both = tuple(operation for operation in layer.operations if operation in set(kind.operations))
            if both:
                cells.append(Cell(f"{layer.name} {kind.name}", both, min(harm(layer), harm(kind))))
    return sorted(cells, key=lambda cell: (-cell.harm, len(cell.operations), cell.name))


def harm(part: Part) -> float:
    """What the part does alone; 0 where it was not tried."""
    return part.trial.harm if part.trial else 0.0


def said(trial: Trial) -> str:
    """A trial in words."""
    if trial.error is not None or trial.accuracy_drop is None:
        return f"no figures ({trial.error})"
    return f"accuracy drop {trial.accuracy_drop:.2f} points, logit difference {trial.logit_rel_diff:.3g}"


def _as_dict(part: Part) -> dict[str, Any]:
    return {"name": part.name, "operations": len(part.operations), **(asdict(part.trial) if part.trial else {})}

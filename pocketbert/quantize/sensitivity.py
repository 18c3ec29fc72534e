"""Which parts of a model a recipe harms, and the short list of operations that must stay in float for its sake.

A part is tried alone: everything else stays in float, so that one bad part does not hide another. Layers are tried
one by one, then kinds of operation one by one. A cell (the operations of one kind in one layer) can do no more harm
than its layer and than its kind do, so the lesser of the two bounds its own harm. Cells are excluded from the top of
that ranking on until the limits are kept (by bisection), and then those that turn out not to be needed are taken back.
"""

import itertools
import logging
import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pocketbert.artifacts import Artifact, ArtifactCard
from pocketbert.data.dataset import Split
from pocketbert.errors import ExportError, ParamsError
from pocketbert.params import RecipeParams, SensitivityParams
from pocketbert.quantize.calibration import CalibrationRows, stratified_rows
from pocketbert.quantize.options import RecipeOptions
from pocketbert.quantize.recipes import Recipe
from pocketbert.quantize.sensitivity_graph import Operation
from pocketbert.quantize.sensitivity_trial import Bench, Quantize, Trial

# Runs kept for the way from the ranking to the list, beside those of the bisection.
_SPARE_RUNS = 2

_log = logging.getLogger("pocketbert")


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
        before = _said(self.everything)
        if not self.excluded:
            return f"nothing is excluded: with everything quantized, {before} keeps the limits"
        names = ", ".join(cell.name for cell in self.excluded)
        return f"{names} stay in float: {_said(self.chosen)} instead of {before}"

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


def study_sensitivity(
    params: SensitivityParams, source: Artifact, card: ArtifactCard, quantize: Quantize, valid: Split
) -> Study:
    """Rank the parts of `source` and find the operations that `quantize` must leave in float.

    `card` describes the quantized artifact. At most `params.max_runs` copies are quantized and run. Raises ExportError
    where no list but that of all operations keeps the limits.
    """
    chosen = stratified_rows(valid.targets, params.rows, params.seed)
    rows = Split([valid.texts[index] for index in chosen], valid.targets[chosen])
    with (
        tempfile.TemporaryDirectory(prefix="pocketbert-sensitivity-") as scratch,
        Bench(source, card, quantize, rows, Path(scratch)) as bench,
        _Progress(card.name, params.max_runs) as progress,
    ):
        return _Search(params, bench, progress).study(len(rows))


def resolve_auto(
    params: RecipeParams,
    recipe: Recipe,
    options: RecipeOptions,
    source: Artifact,
    card: ArtifactCard,
    rows: CalibrationRows | None,
    valid: Split | None,
) -> tuple[RecipeOptions, Study]:
    """A recipe's options with the list that its `exclude: auto` stands for, and the study behind it."""
    if valid is None:
        raise ParamsError("exclude: auto needs validation rows", "Give the validation split to `quantize_artifact`.")
    function = recipe.function(params.recipe)

    def quantize(target: Path, exclude: tuple[str, ...]) -> None:
        function(source.model_path, target, options.model_copy(update={"exclude": exclude}), rows)

    study = study_sensitivity(params.sensitivity or SensitivityParams(), source, card, quantize, valid)
    _log.info("%s: %s (%d runs)", card.name, study.reason, study.runs)
    return options.model_copy(update={"exclude": study.exclude}), study


class _Search:
    def __init__(self, params: SensitivityParams, bench: Bench, progress: "_Progress") -> None:
        self._params, self._bench, self._progress = params, bench, progress

    def study(self, rows: int) -> Study:
        everything = self._measure("everything quantized", ())
        operations = self._bench.operations()
        layers, kinds = self._parts(operations)
        layers = self._rank(layers, operations, everything)
        kinds = self._rank(kinds, operations, everything)
        cells = _cells(layers, kinds)
        excluded, trial = self._shortest(cells, everything)
        return Study(
            self._params,
            self._bench.accuracy,
            rows,
            self._bench.runs,
            everything,
            layers,
            kinds,
            cells,
            excluded,
            trial,
        )

    @property
    def _left(self) -> int:
        return self._params.max_runs - self._bench.runs

    def _parts(self, operations: Sequence[Operation]) -> tuple[list[Part], list[Part]]:
        """Layers and kinds, neighbours put together where the budget is too small for all of them."""
        layers, kinds = _grouped(operations, lambda o: o.layer), _grouped(operations, lambda o: o.kind)
        spare = max(1, len(layers) * len(kinds)).bit_length() + _SPARE_RUNS
        room = max(2, self._left - spare)
        few_kinds = _merged(kinds, max(room // 2, room - len(layers)))
        return _merged(layers, room - len(few_kinds)), few_kinds

    def _rank(self, parts: Sequence[Part], operations: Sequence[Operation], everything: Trial) -> list[Part]:
        """Try each part alone."""
        tried = []
        for part in parts:
            inside = set(part.operations)
            others = [operation for operation in operations if operation not in inside]
            trial = self._measure(f"{part.name} alone", others) if others else everything
            tried.append(Part(part.name, part.operations, trial))
        return sorted(tried, key=lambda part: -_harm(part))

    def _shortest(self, cells: Sequence[Cell], everything: Trial) -> tuple[list[Cell], Trial]:
        """The shortest list found that keeps the limits, and its trial."""
        if self._good(everything):
            return [], everything
        kept: dict[int, Trial] = {}
        low, high = 0, len(cells)
        while high - low > 1 and self._left > 0:
            middle = (low + high) // 2
            trial = self._without(cells[:middle])
            if self._good(trial):
                high, kept[middle] = middle, trial
            else:
                low = middle
        if high not in kept:
            raise ExportError(
                f"exclude: auto found no list in {self._bench.runs} runs that keeps accuracy_drop_max = "
                f"{self._params.accuracy_drop_max:g} and logit_rel_diff_max = {self._params.logit_rel_diff_max} "
                f"(everything quantized: {_said(everything)})",
                "Raise a limit or max_runs in the variant's `sensitivity`, or choose a recipe that does less.",
            )
        return self._taken_back(list(cells[:high]), kept[high])

    def _taken_back(self, excluded: list[Cell], trial: Trial) -> tuple[list[Cell], Trial]:
        """Quantize again what need not stay in float, the least harmful cell first."""
        # The last one is needed: without it the bisection failed.
        for cell in excluded[-2::-1]:
            if self._left <= 0:
                break
            fewer = [other for other in excluded if other is not cell]
            attempt = self._without(fewer)
            if self._good(attempt):
                excluded, trial = fewer, attempt
        return excluded, trial

    def _without(self, cells: Sequence[Cell]) -> Trial:
        names = f"{cells[0].name} and {len(cells) - 1} more" if len(cells) > 1 else cells[0].name
        return self._measure(f"all but {names}", [operation for cell in cells for operation in cell.operations])

    def _measure(self, what: str, excluded: Sequence[Operation]) -> Trial:
        trial = self._bench.measure(excluded)
        self._progress.step(self._bench.runs, what, trial)
        return trial

    def _good(self, trial: Trial) -> bool:
        return trial.within(self._params.accuracy_drop_max, self._params.logit_rel_diff_max)


class _Progress:
    """A bar on a terminal, a line a run elsewhere."""

    def __init__(self, name: str, total: int) -> None:
        from tqdm import tqdm

        self._name, self._total = name, total
        self._bar: Any = tqdm(total=total, desc=name, unit="run", file=sys.stderr, disable=not sys.stderr.isatty())

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def step(self, run: int, what: str, trial: Trial) -> None:
        """Say what one run gave."""
        if self._bar.disable:
            _log.info("%s: run %d of at most %d: %s: %s", self._name, run, self._total, what, _said(trial))
        else:
            self._bar.set_postfix_str(f"{what}: {_said(trial)}", refresh=False)
            self._bar.update()


def _grouped(operations: Iterable[Operation], key: Callable[[Operation], str]) -> list[Part]:
    groups: dict[str, list[Operation]] = {}
    for operation in operations:
        groups.setdefault(key(operation), []).append(operation)
    return [Part(name, tuple(members)) for name, members in groups.items()]


def _merged(parts: Sequence[Part], count: int) -> list[Part]:
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


def _cells(layers: Sequence[Part], kinds: Sequence[Part]) -> list[Cell]:
    """The cells, the most harmful one first; among equals the one with fewer operations."""
    cells = []
    for layer in layers:
        for kind in kinds:
            both = tuple(operation for operation in layer.operations if operation in set(kind.operations))
            if both:
                cells.append(Cell(f"{layer.name} {kind.name}", both, min(_harm(layer), _harm(kind))))
    return sorted(cells, key=lambda cell: (-cell.harm, len(cell.operations), cell.name))


def _harm(part: Part) -> float:
    return part.trial.harm if part.trial else 0.0


def _said(trial: Trial) -> str:
    if trial.error is not None or trial.accuracy_drop is None:
        return f"no figures ({trial.error})"
    return f"accuracy drop {trial.accuracy_drop:.2f} points, logit difference {trial.logit_rel_diff:.3g}"


def _as_dict(part: Part) -> dict[str, Any]:
    return {"name": part.name, "operations": len(part.operations), **(asdict(part.trial) if part.trial else {})}

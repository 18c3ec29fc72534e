"""Which parts of a model a recipe harms, and the short list of operations that must stay in float for its sake.

A part is tried alone: everything else stays in float, so that one bad part does not hide another. Layers are tried
one by one, then kinds of operation one by one. A cell (the operations of one kind in one layer) can do no more harm
than its layer and than its kind do, so the lesser of the two bounds its own harm. Cells are excluded from the top of
that ranking on until the limits are kept (by bisection), and then those that turn out not to be needed are taken back.
"""

import logging
import sys
import tempfile
from collections.abc import Sequence
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
from pocketbert.quantize.sensitivity_study import Cell, Part, Study, cells_of, grouped, harm, merged, said
from pocketbert.quantize.sensitivity_trial import Bench, Quantize, Trial

# Runs kept for the way from the ranking to the list, beside those of the bisection.
_SPARE_RUNS = 2

_log = logging.getLogger("pocketbert")


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
        cells = cells_of(layers, kinds)
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
        layers, kinds = grouped(operations, lambda o: o.layer), grouped(operations, lambda o: o.kind)
        spare = max(1, len(layers) * len(kinds)).bit_length() + _SPARE_RUNS
        room = max(2, self._left - spare)
        few_kinds = merged(kinds, max(room // 2, room - len(layers)))
        return merged(layers, room - len(few_kinds)), few_kinds

    def _rank(self, parts: Sequence[Part], operations: Sequence[Operation], everything: Trial) -> list[Part]:
        """Try each part alone."""
        tried = []
        for part in parts:
            inside = set(part.operations)
            others = [operation for operation in operations if operation not in inside]
            trial = self._measure(f"{part.name} alone", others) if others else everything
            tried.append(Part(part.name, part.operations, trial))
        return sorted(tried, key=lambda part: -harm(part))

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
                f"(everything quantized: {said(everything)})",
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
            _log.info("%s: run %d of at most %d: %s: %s", self._name, run, self._total, what, said(trial))
        else:
            self._bar.set_postfix_str(f"{what}: {said(trial)}", refresh=False)
            self._bar.update()

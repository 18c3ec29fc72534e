"""Build the forms of a classifier's TFLite graph, and prove that each is the classifier."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.data.dataset import Split
from pocketbert.devices.inputs import encode_rows
from pocketbert.errors import ParamsError, PocketBertError, ProofError
from pocketbert.numerics.logits import compare_logits
from pocketbert.params import Params
from pocketbert.runtimes.engines import open_runtime
from pocketbert.tuning.forms import Form

# Real rows by which a form is compared with torch, beside one of a single token.
_ROWS = 32

_log = logging.getLogger("pocketbert")


@dataclass(frozen=True)
class Candidate:
    """A form that was built and proven; `rel_diff` is its largest logit difference to torch, in spreads."""

    form: Form
    artifact: Artifact
    rel_diff: float
    # Other forms that gave the same file.
    same: tuple[str, ...] = ()


class Builder:
    """Exports forms of one classifier into a folder, and compares them with torch's logits."""

    def __init__(self, params: Params, classifier: Path, split: Split, folder: Path, tolerance: float | None) -> None:
        """`tolerance` is the largest logit difference of GELU by tanh; None where it is not allowed."""
        self._params, self._classifier, self._folder, self._tolerance = params, classifier, folder, tolerance
        self._texts = [*split.texts[:_ROWS], ""]
        length = params.export_tflite.sequence_length
        self._benchmark = params.benchmark.model_copy(update={"sequence_length": length})
        self._reference = self._logits(read_artifact(classifier))

    def build(self, form: Form) -> Candidate:
        """Export and prove one form; raises ProofError and ExportError."""
        from pocketbert.export.tflite import export_tflite

        folder = self._folder / form.name
        export_tflite(form.apply(self._params.export_tflite), self._classifier, folder)
        # The name is what a benchmark calls it.
        card = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
        (folder / "artifact.json").write_text(json.dumps(card | {"name": form.name}, indent=1), encoding="utf-8")
        artifact = read_artifact(folder)
        found = compare_logits(self._reference, self._logits(artifact)).max_rel_diff
        limit = self._limit(form)
        if found > limit:
            raise ProofError(
                f"{form.name} differs from torch by {found:.1e} of the logits' spread, more than {limit:.0e}",
                "It is left out of the search.",
            )
        return Candidate(form, artifact, found)

    def _limit(self, form: Form) -> float:
        exact = self._params.validate_.logit_rel_diff_max
        return max(exact, self._tolerance or 0.0) if form.variants.gelu == "tanh" else exact

    def _logits(self, artifact: Artifact) -> NDArray[np.float32]:
        runtime = open_runtime(artifact, threads=1)
        try:
            # As the benchmark makes them: cut to what the model was trained on, padded to what is measured.
            return runtime.run(encode_rows(self._benchmark, artifact, self._texts))
        finally:
            runtime.close()


def build_all(
    builder: Builder, forms: Sequence[Form], ready: Callable[[], bool], step: Callable[[str], None]
) -> list[Candidate]:
    """The candidates, the default first; forms that cannot be built or proven are named in the log and left out.

    Two forms that give the same file are one. `ready` says when enough time was spent; `step` is told each name. Raises
    what the default's own build raises.
    """
    found: dict[str, Candidate] = {}
    for number, form in enumerate(forms):
        if number and ready():
            _log.warning("out of time: %d of %d forms were not built", len(forms) - number, len(forms))
            break
        step(form.name)
        try:
            candidate = builder.build(form)
        except PocketBertError as error:
            if number == 0:
                raise
            _log.warning("%s", error)
            continue
        md5 = candidate.artifact.md5()
        if md5 in found:
            shutil.rmtree(candidate.artifact.folder)
            earlier = found[md5]
            found[md5] = Candidate(earlier.form, earlier.artifact, earlier.rel_diff, (*earlier.same, form.name))
        else:
            found[md5] = candidate
    return list(found.values())


def require_recipe(params: Params, recipe: str) -> None:
    """Raise ParamsError unless quantize.recipes has a TFLite recipe of that name."""
    known = [name for name, one in params.quantize.recipes.items() if one.format == "tflite"]
    if recipe not in known:
        raise ParamsError(f"quantize.recipes has no TFLite recipe {recipe!r}", f"Known: {', '.join(known) or 'none'}.")


def quantized(
    candidates: Sequence[Candidate], params: Params, recipe: str, train: Split, folder: Path
) -> Iterator[Candidate]:
    """The same by a recipe of `quantize.recipes`; raises ExportError."""
    from pocketbert.quantize.run import quantize_artifact

    for candidate in candidates:
        target = folder / f"{candidate.form.name}-{recipe}"
        quantize_artifact(params.quantize, recipe, {"tflite": candidate.artifact.folder}, train, target)
        card = json.loads((target / "artifact.json").read_text(encoding="utf-8"))
        (target / "artifact.json").write_text(json.dumps(card | {"name": candidate.form.name}), encoding="utf-8")
        yield Candidate(candidate.form, read_artifact(target), candidate.rel_diff, candidate.same)

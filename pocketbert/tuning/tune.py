"""`pocketbert tune`: build the forms, prove them, race them on the device, and write down which one won."""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pocketbert import __version__
from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.data.dataset import Split, read_labels, read_split
from pocketbert.devices.inventory import find_device
from pocketbert.errors import DeviceError
from pocketbert.measurement import measurement_name
from pocketbert.params import Params
from pocketbert.params.artifacts import SustainedParams
from pocketbert.tuning.candidates import Builder, Candidate, build_all, quantized, require_recipe
from pocketbert.tuning.forms import all_forms
from pocketbert.tuning.profile import PROFILES_FOLDER, write_profile
from pocketbert.tuning.race import Race, race

# Runs of a round: a fresh process each, in an order that is shuffled each round.
_RUNS, _WARMUP = 20, 5
# Building may take so much of the budget: half of what is left belongs to the last comparison.
_BUILD_SHARE = 0.6


@dataclass(frozen=True)
class Request:
    """What is to be tuned."""

    device: str
    budget_s: float
    classifier: Path = Path("models/classifier")
    prepared: Path = Path("data/prepared")
    # A key of quantize.recipes; the unquantized file where it is None.
    recipe: str | None = None
    # Largest logit difference, in spreads, for which GELU by tanh may stand in for the exact one.
    gelu_tolerance: float | None = None
    profiles: Path = PROFILES_FOLDER
    # Which rows of the device decide: cpu, or gpu- and a precision.
    accelerator: str = "cpu"


@dataclass(frozen=True)
class Tuned:
    """How it ended."""

    race: Race
    candidates: list[Candidate]
    profile: Path
    seconds: float


def tune(request: Request, params: Params) -> Tuned:
    """Tune and write the device's profile; raises ParamsError, ExportError, ProofError and DeviceError."""
    from pocketbert.devices.benchmark import with_own_params

    started = time.monotonic()
    deadline = started + request.budget_s
    device = find_device(request.device)
    if request.recipe is not None:
        require_recipe(params, request.recipe)
    params = params.model_copy(update={"benchmark": with_own_params(params.benchmark, device)})
    classifier = read_artifact(request.classifier)
    labels = read_labels(request.prepared)
    test = read_split(request.prepared / "test.parquet", labels)
    forms = all_forms(params.export_tflite, tanh=request.gelu_tolerance is not None)
    with tempfile.TemporaryDirectory(prefix="pocketbert-tune-") as scratch, _Progress(len(forms)) as progress:
        folder = Path(scratch)
        builder = Builder(params, request.classifier, test, folder / "forms", request.gelu_tolerance)
        build_until = started + _BUILD_SHARE * request.budget_s
        candidates = build_all(builder, forms, lambda: time.monotonic() > build_until, progress.built)
        if request.recipe is not None:
            train = read_split(request.prepared / "train.parquet", labels)
            candidates = list(quantized(candidates, params, request.recipe, train, folder / request.recipe))
        meter = _Meter(request, params, [c.artifact for c in candidates], test, folder, progress)
        found = race([c.form.name for c in candidates], meter.measure, deadline)
        record = _record(request, params, classifier, found, candidates, time.monotonic() - started)
    winner = next(c for c in candidates if c.form.name == found.winner)
    settings: dict[str, Any] = {"export_tflite": winner.form.settings(params.export_tflite)}
    if winner.form.variants.gelu == "tanh" and request.gelu_tolerance is not None:
        # The proof of the conversion has to allow what was allowed here.
        limit = max(params.validate_.logit_rel_diff_max, request.gelu_tolerance)
        settings["validate"] = {"logit_rel_diff_max": limit}
    path = write_profile(settings, record, request.device, request.profiles)
    return Tuned(found, candidates, path, time.monotonic() - started)


class _Meter:
    """Measures candidates on the device by the benchmark's own means."""

    def __init__(
        self,
        request: Request,
        params: Params,
        artifacts: Sequence[Artifact],
        test: Split,
        folder: Path,
        progress: "_Progress",
    ) -> None:
        self._device, self._test, self._folder, self._progress = request.device, test, folder / "rounds", progress
        # As benchmark_artifacts names its rows.
        self._suffix = "" if request.accelerator == "cpu" else f"@{request.accelerator}"
        self._artifacts = {artifact.name: artifact for artifact in artifacts}
        length = params.export_tflite.sequence_length
        # What a round is, is the race's.
        quiet = {
            "sequence_length": length, "ci_width": None, "accuracy_rows": 0, "warmup": _WARMUP,
            "sustained": SustainedParams(),
        }  # fmt: skip
        self._params = params.benchmark.model_copy(update=quiet)
        self._count = 0

    def measure(self, names: Sequence[str], rounds: int) -> dict[str, list[list[float]]]:
        """Latencies in milliseconds, a list a round; raises DeviceError where the default cannot be measured."""
        import pyarrow.parquet as pq

        from pocketbert.devices.benchmark import REFERENCE, benchmark_artifacts

        self._progress.measuring(len(names), rounds)
        self._count += 1
        folder = self._folder / str(self._count)
        params = self._params.model_copy(update={"rounds": rounds, "max_rounds": rounds, "runs": rounds * _RUNS})
        # Every form was proven against torch here; on the device all are compared with the default.
        artifacts = [self._artifacts[name] for name in names]
        first = artifacts[0].card.model_copy(update={"name": REFERENCE})
        artifacts[0] = Artifact(folder=artifacts[0].folder, card=first)
        benchmark_artifacts(params, self._device, artifacts, self._test, folder, own_params=False)
        latencies: dict[str, list[list[float]]] = {name: [[] for _ in range(rounds)] for name in names}
        keys = {f"{artifact.name}{self._suffix}": name for artifact, name in zip(artifacts, names, strict=True)}
        for row in pq.read_table(folder / "latencies.parquet").to_pylist():
            if row["artifact"] in keys:
                latencies[keys[row["artifact"]]][row["round"]].append(row["latency_ms"])
        complete = {name: measured for name, measured in latencies.items() if all(measured)}
        if names[0] not in complete:
            raise DeviceError(
                f"{names[0]} could not be measured on {self._device}{self._suffix}: {self._why(folder)}",
                "Look at `pocketbert devices probe`; a GPU needs an entry `gpu` in devices.yaml.",
            )
        return complete

    def _why(self, folder: Path) -> str:
        """What the row of the default says, of which there are no latencies."""
        from pocketbert.devices.benchmark import REFERENCE

        rows = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))["rows"]
        for row in rows:
            if measurement_name(row["artifact"], row["gpu_precision"]) == f"{REFERENCE}{self._suffix}":
                return str(row["error"] or "the times of a driver in software mean nothing")
        return "the device has no such row"


def _record(
    request: Request, params: Params, classifier: Artifact, found: Race, candidates: Sequence[Candidate], seconds: float
) -> dict[str, Any]:
    return {
        "device": request.device,
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "pocketbert": __version__,
        "classifier_md5": classifier.md5(),
        "accelerator": request.accelerator,
        "recipe": request.recipe,
        "sequence_length": params.export_tflite.sequence_length,
        "threads": params.benchmark.threads,
        "budget_s": request.budget_s,
        "seconds": round(seconds, 1),
        **asdict(found),
        "forms": {
            c.form.name: {"logit_rel_diff": c.rel_diff, "md5": c.artifact.md5(), "same": list(c.same)}
            for c in candidates
        },
    }


class _Progress:
    """A bar on a terminal, over the forms to build and the measurements to make."""

    def __init__(self, forms: int) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(total=forms, unit="form", file=sys.stderr, disable=not sys.stderr.isatty())

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def built(self, name: str) -> None:
        """Another form is being built."""
        self._bar.set_description(f"building {name}")
        self._bar.update()

    def measuring(self, forms: int, rounds: int) -> None:
        """A rung begins."""
        self._bar.set_description(f"measuring {forms} forms, {rounds} rounds")
        self._bar.refresh()

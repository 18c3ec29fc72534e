"""The runner that every stage module ends in: validate, seed, time, track, write atomically.

A stage is a function `stage(params, inputs, outputs, [name...]) -> Metrics`:

- `params` is its own section of params.yaml, or the whole `Params` for the few stages that need more;
- `inputs` and `outputs` are frozen dataclasses of `Path` fields with the paths of dvc.yaml as defaults; a
  path may hold `{name}` for a stage instance such as quantize@onnx-fp16, whose name comes from the command
  line and is passed on as an argument;
- outputs are written under temporary names and renamed when the stage has succeeded.
"""

import argparse
import dataclasses
import hashlib
import inspect
import json
import logging
import math
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from pocketbert.errors import ParamsError, PocketBertError, StorageError
from pocketbert.params import Params, Section, load_params
from pocketbert.process import die_with_parent
from pocketbert.provenance import write_provenance
from pocketbert.storage import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pocketbert.tracking import StageRun

Metrics: TypeAlias = Mapping[str, "float | int | str | bool | Metrics | None"]
StageFunction: TypeAlias = Callable[..., Metrics]

# Outside `outs`, so that DVC does not delete it before a stage runs: checkpoints and unsent tracking records.
STATE_FOLDER = Path(".pocketbert")
# Of a stage instance: it becomes a part of paths.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class StageContext:
    """What library code may use while a stage runs: live metrics and a folder that survives a kill."""

    name: str
    checkpoint_folder: Path
    run: "StageRun | None"

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Send metrics of a training step to the tracking store (batched, never blocking)."""
        if self.run is not None:
            self.run.log_metrics(metrics, step)


_context: ContextVar[StageContext | None] = ContextVar("stage_context", default=None)


def current_stage() -> StageContext | None:
    """The stage that is running, or None where library code is used without one."""
    return _context.get()


def run_stage(function: StageFunction) -> None:
    """Run a stage as a program: parse the command line, run, and exit with the error's own code."""
    who = f"process {_rank()}: " if _rank() else ""
    logging.basicConfig(level=logging.INFO, format=f"{who}%(levelname)s %(message)s", stream=sys.stderr)
    # Libraries' routine reports would drown the stage's own lines; their warnings still show.
    for chatty in ("httpx", "alembic", "mlflow", "datasets", "absl", "root"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # "root" is the root logger itself, whose level ours would inherit.
    logging.getLogger("pocketbert").setLevel(logging.WARNING if _rank() else logging.INFO)
    die_with_parent()
    try:
        execute(function, sys.argv[1:])
    except PocketBertError as error:
        logging.getLogger("pocketbert").error("%s", error)
        sys.exit(error.exit_code)


def execute(function: StageFunction, argv: list[str]) -> Metrics:
    """Run a stage in this process and return its metrics; raises PocketBertError."""
    parameters = list(inspect.signature(function).parameters.values())
    names = _parse_names(function.__name__, [p.name for p in parameters[3:]], argv)
    stage_id = "/".join([function.__name__, *names.values()])
    params = load_params()
    _check_names(params)
    own: Section = params if parameters[0].annotation is Params else params.section(function.__name__)
    inputs = _resolve(parameters[1].annotation, names)
    outputs = _resolve(parameters[2].annotation, names)
    _require(inputs)
    seed = getattr(own, "seed", 0)
    random.seed(seed)
    np.random.seed(seed)

    input_hash = _hash_inputs(own, inputs)
    if _rank():
        return _help(lambda paths: function(own, inputs, paths, **names), stage_id, input_hash, outputs)

    from pocketbert.tracking import open_stage_run

    started = time.time()
    with open_stage_run(stage_id, own, params.publish) as run, storage_errors():
        context = StageContext(stage_id, STATE_FOLDER / "checkpoints" / stage_id / input_hash, run)
        token = _context.set(context)
        try:
            with _atomic(outputs) as temporary:
                metrics = function(own, inputs, temporary, **names)
                _require_numbers(metrics)
        finally:
            _context.reset(token)
        run.log_summary(metrics)
        _write_json(Path("metrics", f"{stage_id}.json"), metrics)
        write_provenance(
            Path("provenance", f"{stage_id}.json"),
            stage=stage_id,
            params=own,
            input_hash=input_hash,
            execution_id=run.execution_id,
            started=started,
        )
    # A finished stage needs no checkpoint; a later change of its inputs must not resume from this one.
    shutil.rmtree(STATE_FOLDER / "checkpoints" / stage_id, ignore_errors=True)
    return metrics


def _rank() -> int:
    """Which of several processes of one training this is (torchrun's name); 0 is the one that writes."""
    return int(os.environ.get("RANK", "0"))


def _help(run: Callable[[Any], Metrics], stage_id: str, input_hash: str, outputs: Any) -> Metrics:
    """Run a stage for what it does for process 0: what it writes is thrown away, and nothing is tracked."""
    with tempfile.TemporaryDirectory(prefix="pocketbert-") as folder:
        token = _context.set(StageContext(stage_id, Path(folder, "checkpoints", input_hash), None))
        try:
            return run(type(outputs)(**{name: Path(folder, name) for name in _paths(outputs)}))
        finally:
            _context.reset(token)


def _check_names(params: Params) -> None:
    """Refuse an unknown recipe or device kind now: their own stages come after hours of training."""
    from pocketbert.devices.inventory import INVENTORY_PATH, read_inventory
    from pocketbert.quantize.recipes import check_recipes

    check_recipes(params.quantize)
    # Without the file only `benchmark` is impossible, and says so.
    if INVENTORY_PATH.exists():
        devices, wanted = read_inventory().devices, params.quantize.objective.device
        if devices and wanted not in devices:
            raise ParamsError(
                f"quantize.objective.device: {INVENTORY_PATH} has no device {wanted!r}", f"Known: {', '.join(devices)}."
            )


def _parse_names(stage: str, names: list[str], argv: list[str]) -> dict[str, str]:
    """The names of a stage instance: given by hand (`local`), or as DVC tells them (DVC_STAGE: `benchmark@local`)."""
    parser = argparse.ArgumentParser(prog=f"python -m stages.{stage}")
    for name in names:
        parser.add_argument(name)
    parsed = vars(parser.parse_args(argv))
    for name, value in parsed.items():
        path, at, told = value.partition(f"{stage}@")
        # DVC puts dvc.yaml's path before it when it runs in another folder.
        parsed[name] = told if at and (not path or path.endswith(":")) else value
        if not _NAME.fullmatch(parsed[name]):
            raise ParamsError(
                f"{parsed[name]!r} cannot be the name of a {name}",
                "Take letters, digits, `_`, `-` and, not at the start, `.` in params.yaml or devices.yaml.",
            )
    return parsed


def _resolve(kind: type[Any], names: Mapping[str, str]) -> Any:
    """The dataclass with `{name}` filled in in each path."""
    paths = {f.name: Path(str(f.default).format(**names)) for f in dataclasses.fields(kind)}
    return kind(**paths)


def _paths(bundle: Any) -> dict[str, Path]:
    return {f.name: getattr(bundle, f.name) for f in dataclasses.fields(bundle)}


def _require(inputs: Any) -> None:
    for path in _paths(inputs).values():
        if not path.exists():
            raise ParamsError(f"{path} does not exist", "Run `dvc repro`, which builds what a stage needs first.")


def _hash_inputs(params: Section, inputs: Any) -> str:
    """Identity of an execution's inputs: parameters, and names and contents of the input files."""
    digest = hashlib.sha256(params.model_dump_json().encode())
    for path in _paths(inputs).values():
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            digest.update(f"{file}:".encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "md5").digest())
    return digest.hexdigest()[:16]


@contextmanager
def _atomic(outputs: Any) -> "Iterator[Any]":
    """Yield the outputs under temporary names beside their own; rename them on success, delete them on failure."""
    final = _paths(outputs)
    temporary = {name: path.with_name(f".{path.name}.{os.getpid()}.tmp") for name, path in final.items()}
    for path in final.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Left by a killed run of this stage: DVC never runs one stage instance twice at a time.
        for stale in path.parent.glob(f".{path.name}.*.tmp"):
            _remove(stale)
    try:
        yield type(outputs)(**temporary)
        for name, path in final.items():
            if not temporary[name].exists():
                raise StorageError(f"the stage did not write {path}", "This is a bug; please report it.")
        for name, path in final.items():
            _remove(path)
            temporary[name].rename(path)
    finally:
        for path in temporary.values():
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _require_numbers(metrics: Metrics, prefix: str = "") -> None:
    """Refuse NaN and infinity, which JSON cannot say, before an output is replaced."""
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            _require_numbers(value, f"{prefix}{key}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise PocketBertError(f"the metric {prefix}{key} is {value}", "Look for what diverged; unknown is null.")


def _write_json(path: Path, document: Metrics) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    temporary.rename(path)

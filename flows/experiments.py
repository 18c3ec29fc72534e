"""Experiments in DVC's queue: what a file asks for, and what became of them."""

import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.outcome import sentence
from flows.servers import MODEL_PAGES
from pocketbert.errors import ParamsError
from pocketbert.params import read_yaml

_PUBLISHED, _CHOICE = "results/publish/publish.json", "report/choice.json"


@dataclass(frozen=True)
class Experiment:
    """One that has left the queue; `error` is None where it succeeded."""

    name: str
    overrides: tuple[str, ...]
    error: str | None


def read_experiments(path: Path) -> list[tuple[str, ...]]:
    """The overrides of each experiment of a YAML file; raises ParamsError.

    A mapping of parameters to lists is a grid (all combinations); a list holds one mapping an experiment.
    """
    fix = "Write `distill.temperature: [1, 2, 4]` (a grid), or a list of `{distill.temperature: 4}`."
    if not path.is_file():
        raise ParamsError(f"{path} does not exist", fix)
    document = read_yaml(path)
    if isinstance(document, dict) and document and all(isinstance(values, list) for values in document.values()):
        combinations = itertools.product(*document.values())
        document = [dict(zip(document, values, strict=True)) for values in combinations]
    if not isinstance(document, list) or not document or not all(isinstance(entry, dict) for entry in document):
        raise ParamsError(f"{path} holds neither a grid nor a list of experiments", fix)
    found = [tuple(f"{key}={_text(value)}" for key, value in entry.items()) for entry in document]
    return list(dict.fromkeys(found))


def _text(value: Any) -> str:
    """As `dvc exp run -S` takes it."""
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


def forget_dead() -> None:
    """Mark experiments failed that were killed with their worker: whoever waits for the queue would wait for them too.

    Their copies of the project are deleted. Where somebody's own `dvc queue start` is at work, nothing is touched.
    """
    from dvc.repo import Repo

    with Repo() as repo:
        queue = repo.experiments.celery_queue
        dead = list(queue.iter_active())
        if not dead or queue.worker_status():
            return
        # `dvc queue kill` does the same after a signal to a process id that may be another's by now.
        queue._mark_inactive_tasks_failure({entry: entry.stash_rev for entry in dead})
        for entry in dead:
            copy = Path(queue._load_info(entry.stash_rev).root_dir)
            if Path(".dvc/tmp/exps").absolute() in copy.parents:
                shutil.rmtree(copy, ignore_errors=True)


def outcomes(asked: dict[str, tuple[str, ...]]) -> list[Experiment]:
    """What became of experiments, by name."""
    from dvc.repo import Repo

    errors: dict[str, str | None] = {}
    with Repo() as repo:
        queue = repo.experiments.celery_queue
        for entry, result in queue.iter_done():
            if entry.name in asked:
                failed = result is None or result.exp_hash is None
                errors[entry.name] = _error(queue, entry.stash_rev) if failed else None
    return [Experiment(name, overrides, errors.get(name, "was not run")) for name, overrides in asked.items()]


def _error(queue: Any, rev: str) -> str:
    process = queue.proc.get(rev)
    if process is None:
        return "did not start"
    return sentence(Path(process.stdout).read_text(encoding="utf-8", errors="replace").splitlines())


def _read(experiment: str, path: str) -> dict[str, Any]:
    """A JSON file that an experiment has written; empty where its pipeline has no such file."""
    import dvc.api
    from dvc.exceptions import DvcException

    try:
        document: dict[str, Any] = json.loads(dvc.api.read(path, rev=experiment))
    except (DvcException, FileNotFoundError):
        return {}
    return document


def summary(experiments: Sequence[Experiment], page: str | None) -> str:
    """A table of the experiments, with a link to MLflow's comparison where a server shows it."""
    rows: list[str] = []
    runs: list[str] = []
    where = ""
    for experiment in experiments:
        words = [experiment.name, "<br>".join(f"`{text}`" for text in experiment.overrides)]
        if experiment.error is None:
            published, choice = (_read(experiment.name, path) for path in (_PUBLISHED, _CHOICE))
            if published:
                where = published["experiment_id"]
                runs.append(published["run_id"])
            words += [choice.get("chosen") or "none", choice.get("reason", "")]
        else:
            words += ["failed", experiment.error]
        rows.append(f"| {' | '.join(word.replace('|', '/') for word in words)} |")
    heading = ["| experiment | parameters | chosen | why |", "|---|---|---|---|"]
    table = "\n".join([*heading, *rows])
    if page is None or not runs:
        return f"{table}\n"
    asked = f"runs={json.dumps(runs, separators=(',', ':'))}&experiments={json.dumps([where])}".replace('"', "%22")
    return f"[Compare them in MLflow]({page}/#/compare-runs?{asked}&{MODEL_PAGES})\n\n{table}\n"

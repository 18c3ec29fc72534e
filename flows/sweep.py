"""Experiments from a file, through DVC's queue: each is a parent run in MLflow, comparable with all others.

python -m flows.sweep FILE [JOBS]
"""

import sys
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from flows.experiments import Experiment, forget_dead, outcomes, read_experiments, summary
from flows.outcome import sentence
from flows.reaper import announce
from flows.results import tracking_page
from flows.slots import workspace_slot
from flows.workspace import check_overrides, run_dvc
from pocketbert.errors import ParamsError
from pocketbert.process import die_with_parent

Jobs = Annotated[int, Field(ge=1, le=64)]


@task(task_run_name="{experiment.name}", cache_policy=NO_CACHE, persist_result=False)
def show(experiment: Experiment) -> State[Any]:
    """One line a experiment in the page of the run."""
    get_run_logger().info("%s", " ".join(experiment.overrides))
    return Completed() if experiment.error is None else Failed(message=experiment.error)


@flow(name="sweep")
def sweep(file: str = "sweep.yaml", jobs: Jobs = 1) -> State[Any] | None:
    """Queue the experiments, run them, and compare; one that fails leaves the others alone.

    Args:
        file: YAML in the project: a grid (`parameter: [values]`), or a list of `{parameter: value}`.
        jobs: Experiments at a time, on the worker's machine.
    """
    die_with_parent()
    announce()
    log = get_run_logger().info
    try:
        experiments = read_experiments(Path(file))
        for overrides in experiments:
            check_overrides(overrides)
    except ParamsError as error:
        return Failed(message=str(error))
    asked = {f"{flow_run.name}-{number}": overrides for number, overrides in enumerate(experiments, 1)}
    with workspace_slot():
        forget_dead()
        for name, overrides in asked.items():
            sets = [word for text in overrides for word in ("--set-param", text)]
            returncode, lines = run_dvc(["exp", "run", "--queue", "--name", name, *sets], lambda line: log("%s", line))
            if returncode != 0:
                return Failed(message=f"{name} cannot be queued: {sentence(lines)}")
        run_dvc(["exp", "run", "--run-all", "--jobs", str(jobs)], lambda line: log("%s", line))
        ended = outcomes(asked)
    for experiment in ended:
        show(experiment, return_state=True)
    create_markdown_artifact(summary(ended, tracking_page()), key="sweep", description="Experiments of this sweep")
    failed = [f"{experiment.name}: {experiment.error}" for experiment in ended if experiment.error]
    return Failed(message="\n".join([f"{len(failed)} of {len(ended)} failed", *failed])) if failed else None


if __name__ == "__main__":
    sys.exit(not sweep(*sys.argv[1:], return_state=True).is_completed())

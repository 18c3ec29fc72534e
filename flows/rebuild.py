"""The whole pipeline as a Prefect flow: one task a DVC stage, in the order of DVC's own graph.

    python -m flows.rebuild [section.key=value ...]

DVC alone decides what is stale; a stage that it skipped is shown as Cached.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed
from pydantic import Field

from flows.mend import remember
from flows.outcome import is_transient, outcome, unreachable
from flows.own_params import overridden
from flows.reaper import announce
from flows.remote import RemoteError, team_remote
from flows.results import publish_results
from flows.slots import workspace_slot
from flows.workspace import apply_overrides, run_dvc, stage_order
from pocketbert.devices.inventory import read_inventory
from pocketbert.devices.retry import retry
from pocketbert.errors import ParamsError, StorageError
from pocketbert.process import die_with_parent

Override = Annotated[str, Field(pattern=r"^(\+{0,2}[A-Za-z_][\w.-]*=.*|~[A-Za-z_][\w.-]*)$")]


def _may_work_later(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    return is_transient(state)


_OPTIONS: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": 2,
    "retry_delay_seconds": [30, 120],
    "retry_condition_fn": _may_work_later,
}


@task(task_run_name="{stage}", **_OPTIONS)
def run_stage(stage: str) -> State[Any]:
    """`dvc repro --single-item` of one stage, its output line by line in the task's log."""
    logger, remote = get_run_logger(), team_remote()
    try:
        if remote is not None and remote.receive(stage):
            logger.info("%s was built before by the team", stage)
        returncode, lines = run_dvc(["repro", "--single-item", stage], lambda line: logger.info("%s", line))
        state = outcome(stage, returncode, lines)
        remember()
        if remote is not None and state.is_completed() and state.name != "Cached":
            remote.send(stage)
    except RemoteError as error:
        return unreachable(stage, error)
    return state


@task(**_OPTIONS)
def share_all() -> State[Any]:
    """Send what a flow that was killed may have left unsent, too."""
    try:
        if (remote := team_remote()) is not None:
            remote.send()
    except RemoteError as error:
        return unreachable("share_all", error)
    return Completed(message="all is in the DVC remote")


def ask_again(stages: Sequence[str]) -> list[tuple[str, str]]:
    """Of the devices that these stages measure, have those that were down measured again: their names and reasons."""
    return retry([name for name in read_inventory().devices if f"benchmark@{name}" in stages])


@flow(name="rebuild")
def rebuild(overrides: list[Override] = [], targets: list[str] = []) -> State[Any] | None:  # noqa: B006 (never written)
    """Build what is stale, stage by stage; ends with the first stage that fails, and with its state.

    Args:
        overrides: `section.key=value` of params.yaml, as for `dvc exp run -S`. They stay there.
        targets: Stages, or groups of stages, to build with what they need. None: all.
    """
    die_with_parent()
    announce()
    if not Path("dvc.yaml").exists():
        return Failed(message="dvc.yaml is not here. Start the flow from the root of the project.")
    with workspace_slot(), ExitStack() as clone:
        try:
            if team_remote() is not None:
                clone.enter_context(overridden(overrides))
            elif overrides:
                apply_overrides(overrides)
            stages = stage_order(targets)
            for device, reason in ask_again(stages):
                get_run_logger().info("%s is asked again. It had failed: %s", device, reason)
            steps: list[Callable[..., Any]] = [partial(run_stage, stage) for stage in stages]
        except (ParamsError, StorageError) as error:
            return Failed(message=str(error))
        if team_remote() is not None:
            steps.append(share_all)
        for step in steps:
            state: State[Any] = step(return_state=True)
            if not state.is_completed():
                # Not the task's state itself, of which Prefect would only say "1/1 states failed".
                return State(type=state.type, name=state.name, message=state.message)
        publish_results()
    return None


if __name__ == "__main__":
    sys.exit(not rebuild(sys.argv[1:], return_state=True).is_completed())

"""The whole pipeline as a Prefect flow: one task a DVC stage, in the order of DVC's own graph.

    python -m flows.rebuild [section.key=value ...]

DVC alone decides what is stale; a stage that it skipped is shown as Cached.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Failed
from pydantic import Field

from flows.outcome import is_transient, outcome
from flows.results import publish_results
from flows.workspace import apply_overrides, run_dvc, stage_order, workspace_slot
from pocketbert.errors import ParamsError
from pocketbert.process import die_with_parent

Override = Annotated[str, Field(pattern=r"^(\+{0,2}[A-Za-z_][\w.-]*=.*|~[A-Za-z_][\w.-]*)$")]
Overrides = Annotated[
    list[Override],
    Field(title="Overrides", description="section.key=value of params.yaml, as for `dvc exp run -S`. They stay there."),
]


def _may_work_later(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    return is_transient(state)


@task(
    task_run_name="{stage}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=[30, 120],
    retry_condition_fn=_may_work_later,
)
def run_stage(stage: str) -> State[Any]:
    """`dvc repro --single-item` of one stage, its output line by line in the task's log."""
    logger = get_run_logger()
    returncode, lines = run_dvc(["repro", "--single-item", stage], lambda line: logger.info("%s", line))
    return outcome(stage, returncode, lines)


@flow(name="rebuild")
def rebuild(overrides: Overrides = []) -> State[Any] | None:  # noqa: B006 (never written; the UI shows a list)
    """Build what is stale, stage by stage; ends with the first stage that fails, and with its state."""
    die_with_parent()
    if not Path("dvc.yaml").exists():
        return Failed(message="dvc.yaml is not here. Start the flow from the root of the project.")
    with workspace_slot():
        try:
            if overrides:
                apply_overrides(overrides)
        except ParamsError as error:
            return Failed(message=str(error))
        for stage in stage_order():
            state: State[Any] = run_stage(stage, return_state=True)
            if not state.is_completed():
                # Not the task's state itself, of which Prefect would only say "1/1 states failed".
                return State(type=state.type, name=state.name, message=state.message)
        publish_results()
    return None


if __name__ == "__main__":
    sys.exit(not rebuild(sys.argv[1:], return_state=True).is_completed())

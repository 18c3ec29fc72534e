"""The whole pipeline as a Prefect flow: one task a DVC stage, in the order of DVC's own graph.

    python -m flows.rebuild

DVC alone decides what is stale; a stage that it skipped is shown as Cached.
"""

import subprocess
import sys
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.concurrency.sync import concurrency
from prefect.states import Completed, Failed, State

# One dvc at a time in a workspace: a second one fails at once instead of waiting.
WORKSPACE_LIMIT = "pocketbert-workspace"
TAIL_LINES = 20


def stage_order() -> list[str]:
    """Addresses of all stages (quantize@onnx-fp16, ...), dependencies first, as DVC sees them."""
    import networkx
    from dvc.repo import Repo

    with Repo() as repo:
        graph = repo.index.graph
        return [stage.addressing for stage in reversed(list(networkx.topological_sort(graph)))]


@task(task_run_name="{stage}", cache_policy=None, persist_result=False)
def run_stage(stage: str) -> State:
    """`dvc repro --single-item` of one stage, its output line by line in the task's log."""
    logger = get_run_logger()
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None  # noqa: S101 (for the type checker: PIPE is set above)
        for line in process.stdout:
            lines.append(line.rstrip())
            logger.info("%s", lines[-1])
    if process.returncode != 0:
        return Failed(message="\n".join([f"{stage} ended with {process.returncode}", *lines[-TAIL_LINES:]]))
    if any("didn't change, skipping" in line for line in lines):
        return Completed(name="Cached", message=f"{stage} is up to date")
    return Completed(message=f"{stage} was rebuilt")


@flow(name="rebuild")
def rebuild() -> None:
    """Run every stage in order; the flow fails with the first stage that fails."""
    if not Path("dvc.yaml").exists():
        raise FileNotFoundError("dvc.yaml is not here. Start the flow from the root of the project.")
    with concurrency(WORKSPACE_LIMIT):
        for stage in stage_order():
            state = run_stage(stage, return_state=True)
            if state.is_failed():
                raise RuntimeError(state.message)


if __name__ == "__main__":
    rebuild()

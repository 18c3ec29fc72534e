"""Measure on devices again, side by side, and compare with the results published last.

    python -m flows.benchmark_devices [TAG]

A night without a regression is published. After one with a regression, or with a device that failed, the workspace
goes back to the published results, so that the next night is compared with these too.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import wait
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.outcome import is_transient, outcome, unreachable
from flows.reaper import announce
from flows.results import publish_results
from flows.slots import device_slot, workspace_slot
from flows.workspace import end_all, restored, run_dvc
from pocketbert.devices.inventory import read_inventory
from pocketbert.devices.retry import unreached
from pocketbert.errors import PocketBertError
from pocketbert.process import die_with_parent
from pocketbert.report.latency_runs import read_run
from pocketbert.report.regression import NightChange, compare_nights

Noise = Annotated[float, Field(ge=0, le=1)]
_BENCHMARKS = Path("results/benchmark")

_SIDE_BY_SIDE: Any = ThreadPoolTaskRunner(max_workers=64)


@task(
    task_run_name="{device}", cache_policy=NO_CACHE, persist_result=False, retries=2, retry_delay_seconds=[30, 120],
    retry_condition_fn=lambda _task, _run, state: is_transient(state),
)  # fmt: skip
def measure(device: str, local: bool) -> State[Any]:
    """The stage `benchmark@DEVICE`, whether DVC holds it for stale or not."""
    stage, logger = f"benchmark@{device}", get_run_logger()
    with device_slot(device, local=local):
        command = ["repro", "--force", "--single-item", stage]
        return measured(device, *run_dvc(command, lambda line: logger.info("%s", line)))


def measured(device: str, returncode: int, lines: Sequence[str]) -> State[Any]:
    """What became of a device: one that was down has rows that say so, and its stage is done for DVC."""
    state, reasons = outcome(f"benchmark@{device}", returncode, lines), dict(unreached([device]))
    return unreachable(f"benchmark@{device}", reasons[device]) if state.is_completed() and reasons else state


def _changes(before: Path, after: Path, noise: float) -> list[NightChange]:
    if not all((night / "benchmark.json").is_file() for night in (before, after)):
        return []
    return list(compare_nights(read_run(before), read_run(after), noise))


@flow(name="benchmark_devices", task_runner=_SIDE_BY_SIDE)
def benchmark_devices(tag: str = "nightly", noise: Noise = 0.05) -> State[Any]:
    """Measure on all devices with a tag; one that fails leaves the others alone.

    Args:
        tag: Devices of devices.yaml that carry it. Empty: all devices.
        noise: Drift from night to night, as a share of p50, that is no regression.
    """
    die_with_parent()
    announce()
    inventory = read_inventory().devices
    devices = [name for name, device in inventory.items() if not tag or tag in device.tags]
    if not devices:
        return Completed(name="Untagged", message=f"no device of devices.yaml has the tag {tag!r}")
    with workspace_slot(), restored() as keep, TemporaryDirectory() as folder:
        before = Path(folder) / "benchmark"
        if _BENCHMARKS.is_dir():
            shutil.copytree(_BENCHMARKS, before)
        try:
            futures = [measure.submit(name, inventory[name].kind == "local") for name in devices]
            wait(futures)
        except BaseException:
            end_all()
            raise
        problems = [str(future.state.message) for future in futures if not future.state.is_completed()]
        try:
            changes = [change for name in devices for change in _changes(before / name, _BENCHMARKS / name, noise)]
        except PocketBertError as error:
            return Failed(message="\n".join([*problems, str(error)]))
        problems += [str(change) for change in changes if change.regressed]
        text = "\n".join(f"- {'**slower** ' if change.regressed else ''}{change}" for change in changes)
        create_markdown_artifact(text or "Nothing to compare with.", key="devices", description="Against the last run")
        if problems:
            return Failed(message="\n".join(problems))
        keep()
        logger = get_run_logger()
        state = outcome("publish", *run_dvc(["repro", "publish"], lambda line: logger.info("%s", line)))
        publish_results()
        return state


if __name__ == "__main__":
    sys.exit(not benchmark_devices(*sys.argv[1:], return_state=True).is_completed())

"""Rebuild when the raw data has changed since it was last prepared."""

import json
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.outcome import sentence
from flows.reaper import announce
from flows.rebuild import rebuild
from flows.slots import WorkspaceBusyError, workspace_slot
from flows.workspace import run_dvc
from pocketbert.params import load_params, read_yaml
from pocketbert.process import die_with_parent

_LOCK = Path("dvc.lock")
_STAGE = "prepare"


@flow(name="watch_data")
def watch_data() -> State[Any]:
    """Compare the raw data's hash with the one in dvc.lock, as DVC does; run `rebuild` where they differ.

    Before the first build there is nothing to compare with, and nothing is started.
    """
    die_with_parent()
    announce()
    lock = read_yaml(_LOCK) if _LOCK.is_file() else {}
    if not isinstance(lock, dict) or _STAGE not in lock.get("stages", {}):
        return Completed(name="Unbuilt", message="nothing is built yet: run `rebuild` or `dvc repro` once")
    try:
        with workspace_slot(wait=False):
            returncode, lines = run_dvc(["status", "--json", _STAGE], get_run_logger().debug)
    except WorkspaceBusyError:
        return Completed(name="Busy", message="another flow works in this folder; the next check comes")
    if returncode != 0:
        return Failed(message=sentence(lines))
    path = load_params().prepare.path
    change = raw_data_change(json.loads(lines[-1]), str(path))
    if change is None:
        return Completed(name="Unchanged", message=f"{path} is unchanged")
    get_run_logger().info("%s is %s", path, change)
    state: State[Any] = rebuild(return_state=True)
    return state


def raw_data_change(status: Any, path: str) -> str | None:
    """What `dvc status --json` says about `path` ("modified", "deleted", "new"); None where it is unchanged."""
    for entry in status.get(_STAGE, []):
        # Besides mappings there may be words such as "always changed".
        if isinstance(entry, dict) and path in entry.get("changed deps", {}):
            return str(entry["changed deps"][path])
    return None


if __name__ == "__main__":
    watch_data()

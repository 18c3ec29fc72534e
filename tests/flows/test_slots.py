"""The place in a workspace is free the moment its holder is dead."""

import subprocess
import sys
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from flows.slots import WorkspaceBusyError, workspace_slot
from tests.flows.conftest import environment, wait_for

HOLDER = """
import sys, time
from pathlib import Path
from flows.slots import workspace_slot
with workspace_slot():
    Path("held").touch()
    time.sleep(float(sys.argv[1]))
"""


def hold(seconds: float) -> "subprocess.Popen[bytes]":
    Path("held").unlink(missing_ok=True)
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(seconds)], env=environment())
    wait_for(Path("held").exists, 60, "the holder")
    return process


def test_a_killed_holder_holds_up_nobody(miniature: Path) -> None:
    holder = hold(300)
    with pytest.raises(WorkspaceBusyError), workspace_slot(wait=False):
        pass
    holder.kill()
    holder.wait()
    with workspace_slot(wait=False):
        pass


def test_the_second_waits_for_the_first(miniature: Path) -> None:
    holder = hold(3)
    with pytest.raises(WorkspaceBusyError), workspace_slot(wait=False):
        pass
    # Outside a flow there is no log of a run to say it in.
    with disable_run_logger(), workspace_slot():
        assert holder.wait(timeout=5) == 0

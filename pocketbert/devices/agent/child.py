"""A measuring process: started, watched while sensors are read beside it, and ended with all that it started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


class ChildFailed(Exception):
    """The process crashed, hung or was ended; the message is one line."""


def run_child(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    timeout_s: float,
    tick_s: float,
    on_tick: Callable[[int], None],
) -> None:
    """Run a process to its end and call `on_tick(pid)` every `tick_s` seconds; raises ChildFailed.

    Its end is the end of a pipe that only it holds: nothing is polled beside a measurement but the sensors.
    """
    reader, writer = os.pipe()
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[writer]
        )
    os.close(writer)
    try:
        waited = 0.0
        while not select.select([reader], [], [], min(tick_s, timeout_s - waited))[0]:
            waited += min(tick_s, timeout_s - waited)
            on_tick(child.pid)
            if waited >= timeout_s:
                raise ChildFailed(
                    f"the worker did not answer within {timeout_s:g} s and was killed. "
                    "Raise benchmark.timeout_s if the model is that slow."
                )
        code = child.wait()
    finally:
        os.close(reader)
        # A child that is frozen or in the way of an error must not go on.
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            child.wait()
    if code != 0:
        raise ChildFailed(_explain(code, log))


def die_with(parent: int) -> None:
    """On Linux, have the kernel kill this process when its parent (which started it) dies."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _explain(code: int, log: Path) -> str:
    """How a worker ended, with the last line that it had to say."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if code < 0:
        said = f": {lines[-1][:300]}" if lines else ""
        return f"the worker was killed by {signal.Signals(-code).name}{said}"
    if code == REFUSED and lines:
        return lines[-1]
    said = f": {lines[-1][:300]}" if lines else ""
    return f"the worker failed with exit code {code}{said}"


# Exit code of a worker that says in its last line why there is no measurement.
REFUSED = 3

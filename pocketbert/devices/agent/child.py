"""A measuring process: started, watched while sensors are read beside it, and ended with all that it started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# Google's logging library: level, date, time, thread, file and line.
_GLOG_PREFIX = re.compile(r"^[IWEF]\d{4} [\d:.]+ +\d+ [^\]]+\] ")
_FATAL = re.compile(r"F\d{4} |terminate called")
# Stack frames, and what libraries report of their progress.
_NOISE = re.compile(r"\s*(@ |PC: @|\*\*\*|INFO: )")


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
    said = log.read_text(encoding="utf-8", errors="replace")
    words = last_words(said)
    if code == REFUSED and words:
        return said.strip().splitlines()[-1].strip()
    if code < 0:
        return f"the worker was killed by {signal.Signals(-code).name}{words and f': {words}'}"
    return f"the worker failed with exit code {code}{words and f': {words}'}"


def last_words(said: str) -> str:
    """What a process had to say last that is no stack frame and no report of progress; "" where there is nothing."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not _NOISE.match(line)]
    # A C++ program's fatal message comes before its stack.
    fatal = [line for line in lines if _FATAL.match(line)]
    return _GLOG_PREFIX.sub("", (fatal or lines)[-1])[:300] if lines else ""


# Exit code of a worker that says in its last line why there is no measurement.
REFUSED = 3

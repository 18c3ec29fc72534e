"""A program, and all that it starts, as children that die with the process that started them.

A guardian stands between the two:

    python -m flows.child MODULE ARGUMENTS...      does what `python -m MODULE ARGUMENTS...` does

Its standard input is a pipe that nobody writes to: the end of it is the end of the owner, however that ended. The
guardian then kills all below it, also what was started through others or put itself into the background (the
kernel gives such orphans to the guardian). So it does when the program has ended by itself. What is spared
is the sending process of a stage's MLflow record, which ends by itself when the record is sent.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import psutil

_SENDER = "pocketbert.tracking.forward"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def start_child(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Start a Python module with its arguments; output and errors come as text through `stdout`.

    It is in a session of its own, out of reach of the terminal's Ctrl-C. Closing `stdin` kills it and all below it.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "flows.child", *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env={**os.environ, **environment}, start_new_session=True,
    )  # fmt: skip


def below(pid: int) -> list[psutil.Process]:
    """All processes below one, without the senders of MLflow records."""
    with suppress(psutil.NoSuchProcess):
        return [process for process in psutil.Process(pid).children(recursive=True) if not _is_sender(process)]
    return []


def _is_sender(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return _SENDER in process.cmdline()
    return False


def _guard(command: Sequence[str]) -> int:
    """Run the module below this process; returns its exit status, or 128 + the number of the signal that ended it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Whoever ends the group means the program, which is waited for. (A handler is not inherited, as "ignore" would be.)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    program = subprocess.Popen(
        [sys.executable, "-m", *command], stdin=subprocess.DEVNULL, preexec_fn=_die_with_guardian
    )  # fmt: skip
    status: int | None = None
    while status is None:
        ready, _, _ = select.select([sys.stdin, woken], [], [])
        if sys.stdin in ready:
            status = 128 + signal.SIGKILL
        elif os.read(woken, 4096):
            status = _reap().get(program.pid)
    _kill_all()
    return status


def _die_with_guardian() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _reap() -> dict[int, int]:
    """Exit statuses of children that have ended, adopted ones too."""
    ended = {}
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(found[1])
            ended[found[0]] = code if code >= 0 else 128 - code
    return ended


def _kill_all() -> None:
    while left := below(os.getpid()):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)
        _reap()


if __name__ == "__main__":
    sys.exit(_guard(sys.argv[1:]))

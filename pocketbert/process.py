"""Processes that do not outlive the one that started them."""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pocketbert.devices.agent.child import last_words

_PR_SET_PDEATHSIG = 1
_SHELLS = {"ash", "bash", "busybox", "dash", "fish", "ksh", "mksh", "sh", "zsh"}
_WATCH_PERIOD_S = 0.5


@dataclass(frozen=True)
class Ended:
    """How a worker ended: its exit code, None where its time was up, and what it said on standard output and error."""

    returncode: int | None
    said: str

    @property
    def timed_out(self) -> bool:
        """Whether it was killed because its time was up."""
        return self.returncode is None

    def __str__(self) -> str:
        words = last_words(self.said)
        last = words and f": {words}"
        if self.returncode is None:
            return f"the process was killed when its time was up{last}"
        if self.returncode < 0:
            return f"the process was killed by {signal.Signals(-self.returncode).name}{last}"
        return f"the process failed with exit code {self.returncode}{last}"


@contextmanager
def environment_of(wanted: Mapping[str, str], *also: str) -> Iterator[None]:
    """Environment variables for the time of a block; they, and those named besides, are then as before."""
    before = {name: os.environ.get(name) for name in (*wanted, *also)}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def run_worker(module: str, folder: Path, *, timeout_s: float) -> Ended:
    """Run `python -m module folder` to its end or its time limit; it dies with this process.

    What it says goes to a file, so that neither a crash loses its last words nor a grandchild keeps a pipe open.
    """
    command = [sys.executable, "-m", module, str(folder.resolve())]
    variables = os.environ | {"POCKETBERT_WORKER": "1"}
    with tempfile.TemporaryFile(prefix="pocketbert-worker-") as said:
        with subprocess.Popen(  # noqa: S603
            command, env=variables, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        ) as process:
            try:
                returncode: int | None = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                returncode = None
            finally:
                process.kill()
        said.seek(0)
        return Ended(returncode, said.read().decode("utf-8", errors="replace"))


def die_with_parent() -> None:
    """On Linux, have the kernel kill this process when its parent dies, if DVC or pocketbert started it.

    DVC killed with SIGKILL would leave the training running, and the next `dvc repro` would start a second
    one. A stage started by hand (DVC_STAGE is not set) outlives its terminal as any program does.

    DVC runs a stage's command through the user's shell. bash and dash replace themselves by the last
    command, so that DVC is the parent; where a shell stays between (fish, or a command with `;`), the shell
    survives DVC, and the one above the shells is watched instead.
    """
    if sys.platform != "linux" or not ("DVC_STAGE" in os.environ or "POCKETBERT_WORKER" in os.environ):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    parent = os.getppid()
    owner = _above_shells(parent)
    # DVC died before the call above. (In a container DVC itself may be process 1.)
    if owner == 1 and not _runs_python(1):
        os.kill(os.getpid(), signal.SIGKILL)
    if owner != parent:
        threading.Thread(target=_die_with, args=(owner, _started(owner)), name="owner-watch", daemon=True).start()


def _above_shells(pid: int) -> int:
    """The nearest process at or above `pid` that is not a shell."""
    while pid > 1:
        fields = _stat(pid)
        if fields is None or fields[0] not in _SHELLS:
            break
        pid = int(fields[2])
    return pid


def _die_with(owner: int, started: str | None) -> None:
    while _started(owner) == started:
        time.sleep(_WATCH_PERIOD_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _started(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot; None where it is gone or only waits to be reaped."""
    fields = _stat(pid)
    return None if fields is None or fields[1] == "Z" else fields[20]


def _stat(pid: int) -> list[str] | None:
    """/proc/<pid>/stat from its second field on (proc(5)): name, state, parent, ..., start time at 20."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may hold spaces and brackets.
    name, _, rest = text.partition("(")[2].rpartition(")")
    return [name, *rest.split()]


def _runs_python(pid: int) -> bool:
    return "python" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")

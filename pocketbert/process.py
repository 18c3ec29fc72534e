"""Processes that do not outlive the one that started them."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """On Linux, have the kernel kill this process when its parent dies, if DVC or pocketbert started it.

    DVC killed with SIGKILL would leave the training running, and the next `dvc repro` would start a second
    one. A stage started by hand (DVC_STAGE is not set) outlives its terminal as any program does.
    """
    if sys.platform == "linux" and ("DVC_STAGE" in os.environ or "POCKETBERT_WORKER" in os.environ):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        if os.getppid() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

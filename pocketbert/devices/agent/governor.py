"""The processor's frequency governor: set for a benchmark, and put back after it whatever becomes of the agent."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from .files import read_json, read_text, write_json

_POLICIES = "sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
_SAVED = "governors.json"


def set_governor(governor: str, work: Path, root: Path = Path("/")) -> list[str]:
    """Set it on every policy after saving what was set; returns the files. Raises OSError without permission."""
    paths = sorted(root.glob(_POLICIES))
    saved = {str(path): read_text(path) for path in paths}
    write_json(work / _SAVED, saved)
    for path in paths:
        path.write_text(governor, encoding="utf-8")
    return list(saved)


def restore_governors(work: Path) -> None:
    """Put back what `set_governor` saved, if it did."""
    saved = read_json(work / _SAVED)
    if saved is None:
        return
    for path, governor in saved.items():
        if governor is not None:
            Path(path).write_text(governor, encoding="utf-8")
    (work / _SAVED).unlink()


def guard(work: Path) -> int:
    """Start a process that restores the governors when this one is gone; it watches a pipe that only this one holds."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(reader)
        return writer
    # In a session of its own, so that what kills the agent's process group leaves it alone.
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.close(writer)
    os.read(reader, 1)
    restore_governors(work)
    sys.stdout.flush()
    os._exit(0)

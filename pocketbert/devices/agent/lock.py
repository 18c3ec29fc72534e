"""One benchmark at a time on a device: a lock whose owner and age can be read, and that no dead process can hold."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from .files import process_started

_LOCK = "lock"
_KILL_WAIT_S = 5.0


class Lock:
    """`flock` on a file of the work folder: the kernel lets go of it when its holder dies, however that happens."""

    def __init__(self, work: Path) -> None:
        self._path = work / _LOCK
        self._file: int | None = None

    def take(self, owner: dict[str, Any]) -> dict[str, Any] | None:
        """Hold the lock from now on; or what `read_owner` says of the present holder."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return read_owner(self._path.parent) or {}
        pid = os.getpid()
        record = {**owner, "agent_pid": pid, "agent_started": process_started(pid), "since": time.time()}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(record).encode(), 0)
        self._file = file
        return None

    def beat(self) -> None:
        """Say that the holder is alive."""
        if self._file is not None:
            os.utime(self._file)

    def release(self) -> None:
        """Let go."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def read_owner(work: Path) -> dict[str, Any] | None:
    """Who holds the lock, since when (`age_s`) and how long ago it last gave a sign of life; None where it is free."""
    path = work / _LOCK
    try:
        with path.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                record: dict[str, Any] = json.loads(stream.read() or b"{}")
                now = time.time()
                return {
                    **record,
                    "age_s": max(0.0, now - float(record.get("since", now))),
                    "silent_s": max(0.0, now - path.stat().st_mtime),
                }
    except FileNotFoundError:
        return None
    return None


def clear(work: Path) -> dict[str, Any] | None:
    """Kill the holder with all that it started, and delete what sessions left; returns who it was."""
    owner = read_owner(work)
    if owner:
        pid = int(owner.get("agent_pid", 0))
        # The number may have been given to another process since.
        if pid > 1 and process_started(pid) == owner.get("agent_started"):
            # The agent leads its session; everything that it starts is in its process group.
            os.killpg(os.getpgid(pid), signal.SIGKILL)
        deadline = time.monotonic() + _KILL_WAIT_S
        while read_owner(work) is not None and time.monotonic() < deadline:
            time.sleep(0.05)
    shutil.rmtree(work / "sessions", ignore_errors=True)
    return owner

"""Tracking events on the local disk first: what the store has not confirmed is still there after a crash.

One execution is one file of JSON lines, `<execution id>.jsonl`, and beside it `<execution id>.sent`, how far
it has been delivered. Whoever owns or delivers a spool holds an flock on it: the kernel gives it back when
that process dies, however it dies, so a spool that can be locked and has no end belongs to a killed stage.
"""

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

Status = Literal["FINISHED", "FAILED", "KILLED"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, ser_json_inf_nan="constants")

    # Milliseconds since the epoch, when it happened (not when it is delivered): redelivered points are equal.
    time_ms: int


class Start(_Record):
    """First event: what the run is created from."""

    kind: Literal["start"] = "start"
    execution_id: str
    run_name: str
    params: dict[str, str]
    tags: dict[str, str]


class Points(_Record):
    """Metrics of one training step."""

    kind: Literal["points"] = "points"
    step: int
    metrics: dict[str, float]


class Texts(_Record):
    """Tags that became known while the stage ran."""

    kind: Literal["texts"] = "texts"
    tags: dict[str, str]


class End(_Record):
    """Last event."""

    kind: Literal["end"] = "end"
    status: Status


Event = Annotated[Start | Points | Texts | End, Field(discriminator="kind")]
_EVENT: TypeAdapter[Start | Points | Texts | End] = TypeAdapter(Event)


class Position(BaseModel):
    """How far a spool has been delivered: to which store, into which run, up to which byte."""

    model_config = ConfigDict(frozen=True)

    store: str
    run_id: str | None = None
    offset: int = 0
    # Where the last delivered event stands in time, and whether that was the end.
    time_ms: int = 0
    ended: bool = False


class Spool:
    """The events of one execution, locked for this process; appending is safe from any thread."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._writing = threading.Lock()

    @classmethod
    def create(cls, folder: Path, execution_id: str) -> "Spool":
        """Start the spool of a new execution; raises OSError where the disk does not take it."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{execution_id}.jsonl"
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return cls(path, descriptor)

    @classmethod
    def adopt(cls, path: Path) -> "Spool | None":
        """Lock a spool that somebody left, or None where its owner lives or somebody else delivers it."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Delivered and deleted between open and lock.
            gone = not path.exists() or path.stat().st_ino != os.fstat(descriptor).st_ino
        except BlockingIOError:
            gone = True
        if gone:
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    @property
    def descriptor(self) -> int:
        """The open file that holds the lock: a process that inherits it holds the lock too."""
        return self._descriptor

    def append(self, event: Start | Points | Texts | End) -> None:
        """Add an event; raises OSError where the disk does not take it, in which case no half line stays."""
        line = event.model_dump_json().encode() + b"\n"
        with self._writing:
            size = os.fstat(self._descriptor).st_size
            if os.write(self._descriptor, line) != len(line):
                os.ftruncate(self._descriptor, size)
                raise OSError(f"{self.path}: the disk took only part of a record")

    def read(self, offset: int, limit: int = 2000) -> Iterator[tuple[Start | Points | Texts | End | None, int]]:
        """At most `limit` whole lines from a byte offset: (event, offset behind it); a broken line is None."""
        with self.path.open("rb") as stream:
            stream.seek(offset)
            for _ in range(limit):
                line = stream.readline()
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                try:
                    event = _EVENT.validate_json(line)
                except ValidationError:
                    event = None
                yield event, offset

    def position(self, store: str) -> Position:
        """How far it was delivered to this store (an earlier, other store does not count)."""
        try:
            position = Position.model_validate_json(self._sent.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValidationError):
            return Position(store=store)
        return position if position.store == store else Position(store=store)

    def save_position(self, position: Position) -> None:
        """Remember how far it was delivered."""
        temporary = self._sent.with_suffix(".tmp")
        temporary.write_text(json.dumps(position.model_dump()), encoding="utf-8")
        temporary.rename(self._sent)

    @property
    def _sent(self) -> Path:
        return self.path.with_suffix(".sent")

    def remove(self) -> None:
        """Delete the spool: everything in it is in the store."""
        self._sent.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Give the lock back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def left_behind(folder: Path) -> list[Path]:
    """Spools in a folder, oldest first; `Spool.adopt` tells which of them have no owner."""
    return sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime) if folder.is_dir() else []


def has_left_behind(folder: Path) -> bool:
    """Whether a spool in a folder has no owner, which is a cheap question."""
    return not all(map(_is_owned, left_behind(folder)))


def wait_until_sent(folder: Path, execution_ids: Iterable[str], timeout_s: float) -> None:
    """Wait until the spools of executions that have ended are sent or given up, or the time is up."""
    deadline = time.monotonic() + timeout_s
    paths = [folder / f"{execution_id}.jsonl" for execution_id in execution_ids]
    while any(map(_is_owned, paths)) and time.monotonic() < deadline:
        time.sleep(0.05)


def _is_owned(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False

"""Follow an agent's spool by byte offset: a cut link loses no line and doubles none."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pocketbert.devices.links.base import Link, LinkLost
from pocketbert.errors import DeviceError

_CHUNK = 1 << 20
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)

Event = dict[str, Any]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How long the host waits for a device, in seconds."""

    # Between two looks at the spool.
    poll_s: float = 1.0
    # Without a new line: the agent gives a sign of life every second while it measures.
    silence_s: float = 30.0
    # For a broken link to come back.
    reconnect_s: float = 300.0
    # For a device that does not answer at the start: it may be waking up. 0 asks once.
    connect_s: float = 30.0


class _Reader:
    """Reads on in a growing file and cuts it into events; a line that is half there waits for its other half."""

    def __init__(self, link: Link, path: str) -> None:
        self._link, self._path = link, path
        self._offset, self._rest = 0, b""

    def read_on(self) -> list[Event] | None:
        """The events that have come since, None where nothing has; raises LinkLost."""
        chunk = self._link.read(self._path, self._offset, _CHUNK)
        if not chunk:
            return None
        self._offset += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [json.loads(line) for line in lines]


def follow(link: Link, spool: str, exit_file: str, patience: Patience, look: Callable[[], None]) -> Iterator[Event]:
    """Yield the events of a spool until the agent has ended; the last one is `{"event": "end", "code": ...}`.

    `look` is called when the agent is silent; it raises DeviceError where the agent is dead or frozen.
    """
    reader, heard = _Reader(link, spool), time.monotonic()
    while True:
        events = persist(link, patience, reader.read_on)
        if events is not None:
            heard = time.monotonic()
            yield from events
            continue
        ended = persist(link, patience, lambda: link.read(exit_file, 0, _CHUNK))
        if ended:
            # What was written between the two readings.
            while (events := persist(link, patience, reader.read_on)) is not None:
                yield from events
            yield {"event": "end", **json.loads(ended)}
            return
        if time.monotonic() - heard > patience.silence_s:
            look()
            heard = time.monotonic()
        time.sleep(patience.poll_s)


def connect(link: Link, patience: Patience) -> None:
    """Open a link, to a device that may still be waking up; raises DeviceError where it does not answer.

    What will not change by itself, a refused key or a changed host key, is not asked for again.
    """
    try:
        link.connect()
    except LinkLost as error:
        if not patience.connect_s:
            raise
        _again(link, error, patience.connect_s, lambda: None)


def persist(link: Link, patience: Patience, call: Callable[[], Result]) -> Result:
    """The call's result, over a link that is opened anew when it breaks; raises DeviceError when it stays broken."""
    try:
        return call()
    except LinkLost as error:
        return _again(link, error, patience.reconnect_s, call)


def _again(link: Link, lost: DeviceError, limit_s: float, call: Callable[[], Result]) -> Result:
    """Connect and call until both work; raises DeviceError once the time is up."""
    deadline, attempt = time.monotonic() + limit_s, 0
    while time.monotonic() < deadline:
        time.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
        attempt += 1
        try:
            link.connect()
            return call()
        except LinkLost as error:
            lost = error
    raise DeviceError(f"{lost.cause} (tried again for {limit_s:g} s)", lost.fix) from lost

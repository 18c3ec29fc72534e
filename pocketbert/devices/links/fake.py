"""A device that says what a test wants it to say: scripted answers, faults and delays.

Alone it answers from `answers` and `files`. Around another link (a `LocalLink`, say) it passes calls on, so that a real
agent can be measured through a connection that breaks and stutters at moments of the test's choosing.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pocketbert.devices.links.base import Finished, Link
from pocketbert.errors import DeviceError, PocketBertError


@dataclass(frozen=True)
class Fault:
    """What becomes of the `at`-th call (from 1) of a method, and of the `times - 1` calls after it."""

    method: str
    at: int
    error: PocketBertError | None = None
    delay_s: float = 0.0
    times: int = 1
    # Raised when the call has gone through: an answer that got lost.
    after: bool = False


@dataclass
class FakeLink:
    """Implements `Link`. `calls` records every call: the method's name and its first argument."""

    inner: Link | None = None
    # The answer to a command, by its arguments or by a beginning of them; the longest match wins.
    answers: Mapping[tuple[str, ...], Finished] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    faults: Sequence[Fault] = ()
    calls: list[tuple[str, object]] = field(default_factory=list)

    def connect(self) -> None:
        """Connect, unless a fault says otherwise."""
        with self._call("connect", None):
            if self.inner:
                self.inner.connect()

    def run(self, argv: Sequence[str], *, timeout_s: float, input: bytes | None = None) -> Finished:
        """The scripted answer; 127 for a command that the script does not know."""
        with self._call("run", tuple(argv)):
            if self.inner:
                return self.inner.run(argv, timeout_s=timeout_s, input=input)
            known = [key for key in self.answers if tuple(argv[: len(key)]) == key]
            return self.answers[max(known, key=len)] if known else Finished(127, b"", b"not found")

    def start(self, argv: Sequence[str], *, environment: Mapping[str, str], folder: str) -> None:
        """Remember what was started."""
        with self._call("start", tuple(argv)):
            if self.inner:
                self.inner.start(argv, environment=environment, folder=folder)

    def push(self, source: Path, target: str) -> None:
        """Keep the file's content."""
        with self._call("push", target):
            if self.inner:
                self.inner.push(source, target)
            else:
                self.files[target] = source.read_bytes()

    def read(self, path: str, offset: int, limit: int) -> bytes:
        """Part of a kept file."""
        with self._call("read", path):
            if self.inner:
                return self.inner.read(path, offset, limit)
            return self.files.get(path, b"")[offset : offset + limit]

    def pull(self, source: str, target: Path) -> None:
        """Write a kept file here."""
        with self._call("pull", source):
            if self.inner:
                self.inner.pull(source, target)
            elif source in self.files:
                target.write_bytes(self.files[source])
            else:
                raise DeviceError(f"{source} does not exist", "Add it to the fake's files.")

    def close(self) -> None:
        """Close, unless a fault says otherwise."""
        with self._call("close", None):
            if self.inner:
                self.inner.close()

    @contextmanager
    def _call(self, method: str, argument: object) -> Iterator[None]:
        self.calls.append((method, argument))
        number = Counter(name for name, _ in self.calls)[method]
        faults = [f for f in self.faults if f.method == method and f.at <= number < f.at + f.times]
        for fault in faults:
            time.sleep(fault.delay_s)
            if fault.error is not None and not fault.after:
                raise fault.error
        yield
        for fault in faults:
            if fault.error is not None:
                raise fault.error

"""A link: what a device session needs from a transport, and nothing that knows about models.

Commands are lists of arguments, each one passed on as it is: a transport that must go through a shell on the device
quotes them itself. Paths are absolute POSIX paths on the device and may hold blanks, quotes and leading dashes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pocketbert.errors import DeviceError


@dataclass(frozen=True)
class Finished:
    """A command that came to its end on the device."""

    returncode: int
    stdout: bytes
    stderr: bytes


class DiskFull(DeviceError):
    """The device has no room for a file; a smaller one may still find it."""


class LinkLost(DeviceError):
    """The connection broke or went silent. What was started goes on: `connect` again and read on."""


class Link(Protocol):
    """A reachable machine. Every call may raise LinkLost; `connect` may be called again after it."""

    def connect(self) -> None:
        """Open the connection, a broken one anew.

        Raises LinkLost where the device does not answer (trying again may help) and DeviceError where it never will:
        an unknown or changed host key, a refused user key.
        """
        ...

    def run(self, argv: Sequence[str], *, timeout_s: float, input: bytes | None = None) -> Finished:
        """Run a short command to its end; raises DeviceError where it does not end within `timeout_s`.

        A command that cannot be found ends with return code 127.
        """
        ...

    def start(self, argv: Sequence[str], *, environment: Mapping[str, str], folder: str) -> None:
        """Start a command that outlives the link: in its own session, its output in `folder`/stdout and stderr.

        `environment` is added to the device's own; `folder` is made where it is missing, and is the working directory.
        """
        ...

    def push(self, source: Path, target: str) -> None:
        """Copy a file, its folders made, unless the device has that very content there already.

        What was half sent is resumed. Raises DeviceError where the copy's MD5 differs or the disk is full.
        """
        ...

    def read(self, path: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes of a file from `offset` on; b"" at its end, and where it does not exist (yet)."""
        ...

    def pull(self, source: str, target: Path) -> None:
        """Copy a file of the device here; raises DeviceError where it does not exist."""
        ...

    def close(self) -> None:
        """Close the connection. May be called twice."""
        ...

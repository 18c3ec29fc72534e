"""What any link with a POSIX shell at its far end can do, once it can run one command and send one file to it.

The scripts below are fixed texts: names go in as arguments ("$1"), never into the text. They keep to what coreutils,
busybox and toybox have in common.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from pocketbert.devices.links.base import Finished
from pocketbert.devices.links.push import push_file
from pocketbert.devices.links.scripts import absolute, last_line, script
from pocketbert.errors import DeviceError, StorageError

# A pulled file comes in pieces of this size, so that a cut costs one of them.
_PIECE_BYTES = 4 << 20
_READ_S = 60.0

# Only a POSIX shell gives this back as it is.
_HOSTILE = "a b'\"\\ \n$(echo no) `echo no` ;&|<>*?~#!-"
_READ = '[ -f "$1" ] || exit 0; tail -c +"$2" "$1" | head -c "$3"'
_DIGEST = 'md5sum < "$1"'
# Asked twice, because the link broke before the answer came, it starts the command once.
_START = """
folder=$1 count=$2
shift 2
while [ "$count" -gt 0 ]; do export "$1"; shift; count=$((count - 1)); done
mkdir -p "$folder" && cd "$folder" || exit 1
command -v "$1" >/dev/null || { printf '%s: not found\\n' "$1" >&2; exit 127; }
mkdir .started 2>/dev/null || exit 0
if command -v setsid >/dev/null; then setsid "$@" </dev/null >stdout 2>stderr &
else nohup "$@" </dev/null >stdout 2>stderr & fi
"""


class PosixLink(ABC):
    """Everything of a Link but the connection itself."""

    name: str

    @abstractmethod
    def run(self, argv: Sequence[str], *, timeout_s: float, input: bytes | None = None) -> Finished:
        """As in Link."""

    @abstractmethod
    def send(self, argv: Sequence[str], stream: BinaryIO, size: int) -> Finished:
        """Run a command with the `size` bytes left in `stream` as its input; no time limit while the link is alive."""

    def prove_shell(self) -> None:
        """Raises DeviceError where the login shell would not hand arguments on as they are, or prints by itself."""
        done = self.run(["printf", "%s", _HOSTILE], timeout_s=_READ_S)
        if done.stdout != _HOSTILE.encode():
            raise DeviceError(
                f"{self.name}: its login shell is no POSIX shell, or prints by itself: {last_line(done.stdout)!r}",
                "Make it /bin/sh or bash, and let ~/.bashrc print nothing.",
            )

    def start(self, argv: Sequence[str], *, environment: Mapping[str, str], folder: str) -> None:
        """As in Link."""
        for name in environment:
            if not name.isidentifier() or not name.isascii():
                raise DeviceError(f"{name!r} cannot be the name of a variable", "Use letters, digits and underscores.")
        variables = [f"{name}={value}" for name, value in environment.items()]
        done = self.run(script(_START, absolute(folder), str(len(variables)), *variables, *argv), timeout_s=_READ_S)
        if done.returncode != 0:
            raise DeviceError(
                f"{self.name}: {argv[0]} could not be started: {last_line(done.stderr)}",
                f"Look at `pocketbert devices probe {self.name}`.",
            )

    def push(self, source: Path, target: str) -> None:
        """As in Link."""
        push_file(self, source, absolute(target))

    def read(self, path: str, offset: int, limit: int) -> bytes:
        """As in Link."""
        done = self.run(script(_READ, absolute(path), str(offset + 1), str(limit)), timeout_s=_READ_S)
        if done.returncode != 0:
            raise DeviceError(
                f"{self.name}: {path} cannot be read: {last_line(done.stderr)}", "Look at the file on the device."
            )
        return done.stdout

    def pull(self, source: str, target: Path) -> None:
        """As in Link."""
        digest = hashlib.md5(usedforsecurity=False)
        temporary = target.with_name(f".{target.name}.pull")
        try:
            with temporary.open("wb") as stream:
                while piece := self.read(source, stream.tell(), _PIECE_BYTES):
                    stream.write(piece)
                    digest.update(piece)
        except OSError as error:
            raise StorageError(f"{temporary} cannot be written: {error.strerror}", "Free space there.") from error
        there = self.run(script(_DIGEST, absolute(source)), timeout_s=_READ_S)
        if there.returncode != 0 or there.stdout[:32].decode("ascii", "replace") != digest.hexdigest():
            temporary.unlink()
            why = "has changed on the way" if there.returncode == 0 else f"cannot be read: {last_line(there.stderr)}"
            raise DeviceError(f"{self.name}: {source} {why}", "Run it again.")
        temporary.replace(target)

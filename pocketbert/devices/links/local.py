"""This machine as a device, through the same calls as a board."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from pocketbert.devices.links.base import Finished
from pocketbert.errors import DeviceError


class LocalLink:
    """Processes and files of this machine."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def connect(self) -> None:
        """Nothing to do."""

    def run(self, argv: Sequence[str], *, timeout_s: float, input: bytes | None = None) -> Finished:
        """Run a command; raises DeviceError where it does not end in time."""
        try:
            done = subprocess.run(list(argv), input=input or b"", capture_output=True, timeout=timeout_s)  # noqa: S603
        except subprocess.TimeoutExpired as error:
            raise DeviceError(
                f"{argv[0]} did not end within {timeout_s:g} s", "Look at what the device does."
            ) from error
        except (FileNotFoundError, PermissionError) as error:
            return Finished(127, b"", str(error).encode())
        return Finished(done.returncode, done.stdout, done.stderr)

    def start(self, argv: Sequence[str], *, environment: Mapping[str, str], folder: str) -> None:
        """Start a command in a session of its own."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        with Path(folder, "stdout").open("wb") as stdout, Path(folder, "stderr").open("wb") as stderr:
            self._started.append(
                subprocess.Popen(  # noqa: S603
                    list(argv), env=os.environ | dict(environment), cwd=folder, stdin=subprocess.DEVNULL,
                    stdout=stdout, stderr=stderr, start_new_session=True,
                )
            )  # fmt: skip

    def push(self, source: Path, target: str) -> None:
        """Link the file where both places are on one disk, else copy it."""
        place = Path(target)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists() and (place.samefile(source) or _md5(place) == _md5(source)):
            return
        temporary = place.with_name(f".{place.name}.{os.getpid()}.part")
        temporary.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), temporary)
        except OSError:  # another disk, or one that knows no links
            shutil.copy(source, temporary)
        temporary.replace(place)

    def read(self, path: str, offset: int, limit: int) -> bytes:
        """Part of a file; b"" where it does not exist."""
        try:
            with Path(path).open("rb") as stream:
                stream.seek(offset)
                return stream.read(limit)
        except FileNotFoundError:
            return b""

    def pull(self, source: str, target: Path) -> None:
        """Copy a file."""
        try:
            shutil.copyfile(source, target)
        except FileNotFoundError as error:
            raise DeviceError(f"{source} does not exist", "Run the benchmark again.") from error

    def close(self) -> None:
        """Reap what has ended."""
        self._started = [process for process in self._started if process.poll() is None]


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()

"""Fixed shell texts with arguments: how a name reaches a device's shell without becoming part of a command."""

import shlex
from collections.abc import Sequence

from pocketbert.errors import DeviceError


def script(text: str, *arguments: str) -> list[str]:
    """The command that runs a fixed text with arguments "$1", "$2", ..."""
    return ["sh", "-c", text, "sh", *arguments]


def quote(argv: Sequence[str]) -> str:
    """One line for a POSIX shell that runs exactly `argv`, with no keyword, alias or function in its way.

    Raises DeviceError where an argument cannot be passed on by any shell.
    """
    if not argv or argv[0].startswith("-"):
        raise DeviceError(f"{list(argv)[:1]} is no command", "Name a program.")
    line = f"exec {shlex.join(argv)}"
    try:
        line.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DeviceError(f"{printable(line)} is not Unicode text", "Rename the file.") from error
    if "\0" in line:
        raise DeviceError(f"{printable(line)} holds a zero byte", "Rename the file.")
    return line


def absolute(path: str) -> str:
    """A path that no tool can take for an option; raises DeviceError on any other."""
    if not path.startswith("/") or path.endswith("/"):
        raise DeviceError(f"{path!r} is not an absolute path on the device", "Let the work folder start with a slash.")
    return path


def last_line(output: bytes) -> str:
    """The last line that a command had to say, printable and short."""
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return printable(lines[-1]) if lines else "it said nothing"


def printable(text: str) -> str:
    """A text of unknown origin, fit for one line of a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)[:300]

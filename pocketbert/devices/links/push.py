"""Copying a file so that it is sent once: by content, resumed where it was cut, verified, renamed into place."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pocketbert.devices.links.base import DiskFull
from pocketbert.devices.links.scripts import last_line, script
from pocketbert.errors import DeviceError, StorageError

if TYPE_CHECKING:
    from pocketbert.devices.links.posix import PosixLink

# Hashing a large file on a slow card.
_HASH_S = 600.0
_FULL = ("No space left on device", "Disk quota exceeded", "File too large")

# What lies at the target ($1) and in the half-sent file ($2): kind or MD5, and size. A half-sent file gets a new
# inode first: a receiver of a frozen connection may still hold the old one and write to it when it thaws.
_INSPECT = """
mkdir -p "${1%/*}/" || exit 1
if [ -f "$2" ]; then cp "$2" "$2.copy" && mv -f "$2.copy" "$2" || rm -f "$2" "$2.copy"; fi
for path do
    if [ -d "$path" ]; then echo folder 0
    elif [ -f "$path" ]; then echo "$(md5sum < "$path")" "$(wc -c < "$path")"
    else echo absent 0; fi
done
"""
# What a full disk is told by comes in English.
_RECEIVE = 'export LC_ALL=C; [ "$2" -gt 0 ] || rm -f "$1"; cat >> "$1"'
_VERIFY = 'echo "$(md5sum < "$1")" "$(wc -c < "$1")"'
_PLACE = 'chmod "$3" "$1" && mv -f "$1" "$2"'
_REMOVE = 'rm -f "$1"'


@dataclass(frozen=True)
class _Content:
    """MD5 (or `absent`, `folder`) and size of a file."""

    digest: str
    size: int


def push_file(link: "PosixLink", source: Path, target: str) -> None:
    """Copy `source` to `target` on the device; raises LinkLost, DeviceError or StorageError.

    The half-sent file lies beside the target and is named after the content, so that it is never mistaken for the
    beginning of another file. A link that is cut leaves it there; a full disk does not.
    """
    content = _content(source)
    part = f"{target.rpartition('/')[0]}/.{content.digest}.part"
    there, held = _ask(link, _INSPECT, target, part)
    if there.digest == "folder":
        raise DeviceError(f"{link.name}: {target} is a folder on the device", "Remove it there.")
    if there == content:
        return
    begun = 0 < held.size <= content.size and held == _content(source, held.size)
    for offset in (held.size, 0) if begun else (0, 0):
        if offset < content.size or content.size == 0:
            _send(link, source, offset, part)
        (arrived,) = _ask(link, _VERIFY, part)
        if arrived == content:
            _run(link, _PLACE, part, target, f"{source.stat().st_mode & 0o777:o}")
            return
    _run(link, _REMOVE, part)
    raise DeviceError(
        f"{link.name}: {source.name} arrived with other content than was sent, twice", "Check the device's card."
    )


def _content(source: Path, size: int | None = None) -> _Content:
    """MD5 and size of the first `size` bytes of a file, or of the whole."""
    digest = hashlib.md5(usedforsecurity=False)
    left = source.stat().st_size if size is None else size
    counted = 0
    try:
        with source.open("rb") as stream:
            while piece := stream.read(min(left, 1 << 20)):
                digest.update(piece)
                counted += len(piece)
                left -= len(piece)
    except OSError as error:
        raise StorageError(f"{source} cannot be read: {error.strerror}", "Check the file.") from error
    return _Content(digest.hexdigest(), counted)


def _send(link: "PosixLink", source: Path, offset: int, part: str) -> None:
    with source.open("rb") as stream:
        stream.seek(offset)
        done = link.send(script(_RECEIVE, part, str(offset)), stream, source.stat().st_size - offset)
    if done.returncode == 0:
        return
    said = last_line(done.stderr)
    if any(text in said for text in _FULL):
        _run(link, _REMOVE, part)
        megabytes = source.stat().st_size / 1e6
        raise DiskFull(
            f"{link.name}: no space left for {source.name} ({megabytes:.1f} MB) in {part.rpartition('/')[0]}",
            "Free space on the device, or name a work folder on a larger disk.",
        )
    raise DeviceError(f"{link.name}: {source.name} could not be written: {said}", "Look at the work folder there.")


def _ask(link: "PosixLink", text: str, *arguments: str) -> list[_Content]:
    """Run a script that prints a line `DIGEST [-] SIZE` for each file that it is asked about."""
    lines = [line.split() for line in _run(link, text, *arguments).decode("ascii", "replace").splitlines()]
    return [_Content(fields[0], int(fields[-1])) for fields in lines]


def _run(link: "PosixLink", text: str, *arguments: str) -> bytes:
    done = link.run(script(text, *arguments), timeout_s=_HASH_S)
    if done.returncode != 0:
        raise DeviceError(
            f"{link.name}: {arguments[0]} cannot be written: {last_line(done.stderr)}",
            "Name a work folder that the device's user may write to.",
        )
    return done.stdout

"""Small files: those of /proc and /sys, and those that must appear whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_text(path: Path) -> str | None:
    """A file of /proc or /sys without its line end, or None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """A number in a file of /proc or /sys, or None."""
    text = read_text(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def kib_field(path: Path, name: str) -> int | None:
    """A `Name:   123 kB` line of a /proc file, in bytes."""
    for line in (read_text(path) or "").splitlines():
        key, _, value = line.partition(":")
        if key == name and value.split():
            return int(value.split()[0]) * 1024
    return None


def write_json(path: Path, document: Any) -> None:
    """Write a document in one step: it is there as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(document, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """What `write_json` wrote, None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def process_started(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot (proc(5)); None where it is gone or only waits to be reaped."""
    text = read_text(Path(f"/proc/{pid}/stat"))
    if text is None:
        return None
    # The name, in brackets, may hold blanks and brackets.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]

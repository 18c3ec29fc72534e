"""What an agent has to say, in JSON lines that are only appended, and how it ended, in a file that appears at once."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from .files import write_json

SPOOL_FILE = "spool.jsonl"
EXIT_FILE = "exit.json"


class Spool:
    """The host reads on from the byte where it was: a line that is here once is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = os.open(folder / SPOOL_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._started = time.monotonic()

    def write(self, event: str, **fields: Any) -> None:
        """Append a line; raises OSError where the disk is full."""
        document = {"event": event, "at_s": round(time.monotonic() - self._started, 3), **fields}
        line = memoryview(json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        while line:
            line = line[os.write(self._file, line) :]

    def end(self, code: int, error: str | None = None) -> None:
        """Say that nothing will be appended any more."""
        write_json(self._folder / EXIT_FILE, {"code": code, "error": error})

"""The agent's command line. Everything but `run` and `measure` answers with one line of JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from .child import REFUSED, die_with
from .engine import Refused


def main(arguments: list[str]) -> None:
    """`run SESSION`, `measure REQUEST`, `clock`, `probe|status|clear WORK`, `install TARGET WHEEL...`."""
    name, *rest = arguments
    if name == "run":
        from .supervise import supervise

        sys.exit(supervise(Path(rest[0])))
    if name == "measure":
        _measure(Path(rest[0]))
    print(json.dumps(_answer(name, rest), ensure_ascii=False), flush=True)


def _measure(request: Path) -> None:
    """Ends the process: LiteRT's destructors are known to crash at interpreter exit, when the answer is on disk."""
    from .measure import measure

    die_with(int(json.loads(request.read_text(encoding="utf-8"))["parent"]))
    try:
        measure(request)
    # Ended while the error, and with it the model, is alive: destructors have last words of their own.
    except Refused as error:
        _end(REFUSED, str(error))
    except Exception as error:  # noqa: BLE001 - its last line is what the row says
        _end(1, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    _end(0)


def _end(code: int, said: str = "") -> None:
    if said:
        sys.stderr.write(f"{said}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _answer(name: str, rest: list[str]) -> dict[str, Any]:
    if name == "probe":
        from .probe import read_probe

        return read_probe(Path(rest[0]))
    if name == "clock":
        return {"clock_s": time.time()}
    if name == "status":
        from .lock import read_owner

        return {"owner": read_owner(Path(rest[0]))}
    if name == "clear":
        from .governor import restore_governors
        from .lock import clear

        owner = clear(Path(rest[0]))
        restore_governors(Path(rest[0]))
        return {"owner": owner}
    if name == "install":
        from .environment import build_environment

        return dict(build_environment([Path(wheel) for wheel in rest[1:]], Path(rest[0])))
    raise SystemExit(f"unknown command {name!r}")

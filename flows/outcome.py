"""What became of a stage, read from what dvc said: a Prefect state."""

import re
from collections.abc import Sequence
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed, Crashed, Failed

from pocketbert.errors import DeviceError, TrackingError

_TAIL_LINES = 20
_EXITED = re.compile(r"failed to run: .*, exited with (-?\d+)$")
# DVC wraps the failure of a stage into lines of its own.
_OF_DVC = re.compile(r"ERROR: failed to reproduce|Running stage |> |$")
_TRANSIENT = (DeviceError.exit_code, TrackingError.exit_code)
_UNREACHABLE = "Unreachable"
# A dvc that somebody runs by hand in the same folder.
_BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")


def outcome(stage: str, returncode: int, lines: Sequence[str]) -> State[Any]:
    """Completed, Cached (a name of Completed), Failed or Crashed (ended by a signal)."""
    if returncode == 0:
        if f"Stage '{stage}' didn't change, skipping" in lines:
            return Completed(name="Cached", message=f"{stage} is up to date")
        if any(line.startswith(f"Stage '{stage}' is cached - skipping run") for line in lines):
            return Completed(name="Cached", message=f"{stage} was built before with these inputs")
        return Completed(message=f"{stage} was rebuilt")
    status = exit_status(lines)
    message = "\n".join([f"{stage}: {sentence(lines)}", "", *lines[-_TAIL_LINES:]])
    # A shell reports a signal as 128 + its number.
    if returncode < 0 or (status is not None and (status < 0 or status > 128)):
        return Crashed(message=message)
    return Failed(message=message)


def unreachable(stage: str, reason: object) -> State[Any]:
    """Failed, because a device or what a team shares does not answer."""
    return Failed(name=_UNREACHABLE, message=f"{stage}: {reason}")


def sentence(lines: Sequence[str]) -> str:
    """The error in its own words: what the stage logged or raised last, else what dvc has to say."""
    own = [line for line in lines if not _OF_DVC.match(line)] if exit_status(lines) is not None else lines
    errors = [line for line in own if line.startswith(("ERROR ", "ERROR: "))]
    last = (errors or [line for line in own if line] or [line for line in lines if line] or ["no output"])[-1]
    return re.sub(r"^ERROR:? ", "", last)


def exit_status(lines: Sequence[str]) -> int | None:
    """Exit status of the stage's own command; None where dvc failed without it."""
    found = [match for line in lines if (match := _EXITED.search(line))]
    return int(found[-1][1]) if found else None


def is_transient(state: State[Any]) -> bool:
    """Whether a device or the network failed, or another dvc is at work, which may be over a little later."""
    text = state.message or ""
    busy = any(words in text for words in _BUSY)
    return busy or state.name == _UNREACHABLE or exit_status(text.splitlines()) in _TRANSIENT

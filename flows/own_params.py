"""params.yaml of a clone that builds for a team: a flow's overrides hold for that flow alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flows.workspace import PARAMS, apply_overrides

_OWN = Path(".pocketbert/params.own.yaml")
_APPLIED = Path(".pocketbert/params.applied.yaml")


@contextmanager
def overridden(overrides: Sequence[str]) -> Iterator[None]:
    """Apply overrides for as long as the block lasts; after a kill, the next flow takes them back.

    Raises ParamsError and then changes nothing.
    """
    _take_back()
    _APPLIED.unlink(missing_ok=True)
    if overrides:
        _copy(PARAMS, _OWN)
    try:
        if overrides:
            apply_overrides(overrides)
            _copy(PARAMS, _APPLIED)
        yield
    finally:
        _take_back()


def _take_back() -> None:
    if not _OWN.exists():
        return
    # What somebody wrote into it since (a pull, say) is theirs.
    if not _APPLIED.exists() or _APPLIED.read_bytes() == PARAMS.read_bytes():
        _copy(_OWN, PARAMS)
    _OWN.unlink()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    temporary.write_bytes(source.read_bytes())
    temporary.replace(target)

"""Two files that DVC writes in place. A dvc that is killed in that moment leaves them torn, and all later ones fail.

python -m flows.mend     mends them; flows and `make repro` do so by themselves
"""

import fcntl
import json
import shutil
import sys
from pathlib import Path

# Held by the flow that works in this folder.
WORKSPACE_LOCK = Path(".pocketbert/workspace.lock")
_LOCK, _LOCK_BEFORE = Path("dvc.lock"), Path(".pocketbert/dvc.lock")
_TMP = Path(".dvc/tmp")


def mend() -> list[str]:
    """Mend what a killed dvc has torn; returns what was done. Only for whoever holds WORKSPACE_LOCK."""
    return [*_mend_rwlock(), *_mend_lock()]


def remember() -> None:
    """Keep a copy of dvc.lock, which is whole now."""
    if _LOCK.is_file():
        _LOCK_BEFORE.parent.mkdir(exist_ok=True)
        temporary = _LOCK_BEFORE.with_suffix(".part")
        shutil.copyfile(_LOCK, temporary)
        temporary.replace(_LOCK_BEFORE)


def _mend_rwlock() -> list[str]:
    """Which dvc reads or writes what. It says nothing where none runs."""
    path = _TMP / "rwlock"
    if _is_json(path):
        return []
    from dvc.lock import make_lock

    # A dvc that somebody started by hand may be writing it just now.
    with make_lock(str(_TMP / "rwlock.lock"), tmp_dir=str(_TMP)):
        if _is_json(path):
            return []
        path.unlink()
    return [f"{path} was torn by a killed dvc: removed"]


def _mend_lock() -> list[str]:
    if not _LOCK.is_file() or _is_lock(_LOCK):
        remember()
        return []
    from dvc.lock import make_lock

    # Likewise; dvc holds this one while it writes.
    with make_lock(str(_TMP / "lock"), tmp_dir=str(_TMP)):
        if _is_lock(_LOCK):
            return []
        if _is_lock(_LOCK_BEFORE):
            shutil.copyfile(_LOCK_BEFORE, _LOCK)
            return [f"{_LOCK} was torn by a killed dvc: it is as before; what was built since comes from DVC's cache"]
        _LOCK.unlink()
        return [f"{_LOCK} was torn by a killed dvc: removed; what was built comes from DVC's cache"]


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


def _is_lock(path: Path) -> bool:
    # PyYAML's parser in C takes 20 ms where ruamel takes half a second.
    import yaml

    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(document, dict) and isinstance(document.get("stages"), dict)


def main() -> int:
    """Mend, unless a flow works here: it has done so, and dvc.lock is its own."""
    WORKSPACE_LOCK.parent.mkdir(exist_ok=True)
    with WORKSPACE_LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        for mended in mend():
            print(mended)
    return 0


if __name__ == "__main__":
    sys.exit(main())

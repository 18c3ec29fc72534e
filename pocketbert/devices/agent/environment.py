"""The worker's own environment on the device, built of wheels without internet and without pip."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from .files import read_json, write_json

_DONE = "environment.json"


def build_environment(wheels: list[Path], target: Path) -> dict[str, str]:
    """Unpack the wheels into a virtual environment at `target`; returns its interpreter and PYTHONPATH.

    Debian's Python may lack ensurepip, and others venv as a whole: then it is a plain folder on PYTHONPATH. A complete
    one is left as it is. Raises zipfile.BadZipFile and OSError.
    """
    done = read_json(target / _DONE)
    if done is not None:
        return {str(k): str(v) for k, v in done.items()}
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    answer = _make_venv(target) or {"interpreter": sys.executable, "packages": str(target / "packages")}
    for wheel in wheels:
        _unpack(wheel, Path(answer["packages"]))
    path = {} if (target / "venv").exists() else {"PYTHONPATH": answer["packages"]}
    write_json(target / _DONE, {"interpreter": answer["interpreter"], **path})
    return {"interpreter": answer["interpreter"], **path}


def _make_venv(target: Path) -> dict[str, str] | None:
    try:
        import venv

        venv.EnvBuilder(symlinks=True, with_pip=False).create(target / "venv")
    except (ImportError, OSError, subprocess.SubprocessError):
        shutil.rmtree(target / "venv", ignore_errors=True)
        return None
    packages = next((target / "venv").glob("lib/python*/site-packages"))
    return {"interpreter": str(target / "venv/bin/python"), "packages": str(packages)}


def _unpack(wheel: Path, packages: Path) -> None:
    """A wheel is a zip file (PEP 427): its root goes to site-packages, as do purelib and platlib of .data."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            parts = Path(member.filename).parts
            if member.is_dir() or ".." in parts or Path(member.filename).is_absolute():
                continue
            if parts[0].endswith(".data"):
                if parts[1] not in ("purelib", "platlib"):
                    continue
                parts = parts[2:]
            target = packages.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)

"""The runtimes' wheels for a device's processor and Python, resolved here and cached by what was asked for."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from pocketbert.devices.base import HostFacts
from pocketbert.errors import DeviceError

_PACKAGES = {"litert": "ai-edge-litert", "onnxruntime": "onnxruntime"}
# glibc of manylinux2014, the oldest that today's wheels are built for.
_OLDEST_GLIBC_MINOR = 17


def resolve_wheels(facts: HostFacts, engines: Sequence[str]) -> list[Path]:
    """The wheels of the engines and of all that they need; raises DeviceError where there are none for the device.

    The engines' versions are those installed here, so that a device's logits can be compared with this machine's.
    """
    # What they need besides, numpy above all, is what pip finds for the device's Python.
    wanted = [f"{package}=={version(package)}" for package in (_PACKAGES[engine] for engine in engines)]
    target = _target_options(facts)
    key = hashlib.sha256("\n".join([*wanted, *target]).encode()).hexdigest()[:16]
    folder = _cache_folder() / key
    if not folder.exists():
        _download(wanted, target, folder)
    return sorted(folder.glob("*.whl"))


def _target_options(facts: HostFacts) -> list[str]:
    """pip's words for the device: every manylinux tag up to its glibc, and its Python's ABIs."""
    glibc = re.fullmatch(r"glibc 2\.(\d+)", facts.libc or "")
    if glibc is None:
        raise DeviceError(
            f"there are no wheels for a system with {facts.libc or 'an unknown C library'}",
            "Install the runtimes on the device and set `environment: own`, or name a `runner` in devices.yaml.",
        )
    major, minor = facts.python.split(".")[:2]
    tags = [f"manylinux_2_{n}_{facts.architecture}" for n in range(int(glibc[1]), _OLDEST_GLIBC_MINOR - 1, -1)]
    options = [f"--platform={tag}" for tag in [*tags, f"manylinux2014_{facts.architecture}"]]
    abis = [f"cp{major}{minor}", "abi3", "none"]
    return [*options, f"--python-version={major}.{minor}", "--implementation=cp", *(f"--abi={abi}" for abi in abis)]


def _download(wanted: Sequence[str], target: Sequence[str], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".wheels-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input",
                   "--only-binary=:all:", f"--dest={scratch}/all", *target, *wanted]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)  # noqa: S603
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
            reason = said[-1].removeprefix("ERROR: ") if said else f"pip ended with {done.returncode}"
            raise DeviceError(
                f"the device's wheels cannot be had: {reason[:300]}",
                "A device needs a Python that the runtimes are built for; or set `environment: own` in devices.yaml.",
            )
        # Another process may have been faster.
        if not folder.exists():
            Path(scratch, "all").rename(folder)


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pocketbert" / "wheels"

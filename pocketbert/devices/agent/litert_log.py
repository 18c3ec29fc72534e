"""Where LiteRT put a model's operators: it says so on standard error and nowhere else."""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .engine import Refused
from .placement import Placement

_DRIVER_HINT = (
    "Install the GPU's Vulkan driver. Without a GPU, Mesa's software driver does for proofs: on Debian 12, "
    "mesa-vulkan-drivers and libvulkan1 from bookworm-backports."
)
NO_GPU = "Failed to initialize WebGPU environment"
_ADAPTER = re.compile(r"Selected adapter: (.+)")
_SPLIT = re.compile(r"^(\d+) operations will run on the GPU, and the remaining (\d+) operations will run on the CPU")
_NONE = re.compile(r"No operations will run on the GPU, and all (\d+) operations will run on the CPU")
_REFUSALS = "Following operations are not supported by GPU delegate"
_PARTITION = re.compile(r"Initializing \S+ API from graph")
_VULKAN_ERROR = re.compile(r"VK_ERROR_[A-Z_]+")
_SOFTWARE = ("adapterType=CPU", "arch=software", "llvmpipe", "SwiftShader")


class NoGpu(Refused):
    """The machine has no GPU that the runtime can use."""

    def __init__(self) -> None:
        super().__init__("no GPU was found: no Vulkan adapter answers", _DRIVER_HINT)


def read_placement(said: str, total: int) -> Placement:
    """Read the runtime's standard error; `total` counts the file's operators. Raises NoGpu."""
    adapter = _ADAPTER.search(said)
    if adapter is None or NO_GPU in said:
        raise NoGpu
    lines = said.splitlines()
    split = next((match for match in map(_SPLIT.search, lines) if match), None)
    none = next((match for match in map(_NONE.search, lines) if match), None)
    # The runtime gives no number where it delegates all.
    left = int(split[2]) if split else int(none[1]) if none else 0
    delegated = int(split[1]) if split else 0 if none else total
    return Placement(
        accelerator="gpu",
        adapter=adapter[1].strip(),
        software=is_software(adapter[1]),
        total=delegated + left,
        delegated=delegated,
        partitions=sum(bool(_PARTITION.search(line)) for line in lines),
        refused=tuple(_refusals(lines)),
    )


def is_software(adapter: str) -> bool:
    """Whether a GPU's name is that of a driver that computes on the processor: its times mean nothing."""
    return any(mark in adapter for mark in _SOFTWARE)


def explain(path: Path, said: str) -> Refused:
    """Why LiteRT could not load a file, by what it wrote on standard error."""
    if NO_GPU in said:
        return NoGpu()
    # "ERROR: ..." is the last consequence; glog's "E0000 ..." lines before it name the cause.
    errors = [line for line in said.splitlines() if re.match(r"E\d{4} ", line)]
    errors = errors or [line for line in said.splitlines() if line.startswith("ERROR")]
    reason = errors[0].rpartition("] ")[2].strip()[:300] if errors else "it gives no reason"
    return Refused(
        f"LiteRT cannot load {path} for the GPU: {reason}",
        "Try it on the CPU (`pocketbert predict`); `pocketbert inspect` says whether the file is sound.",
    )


def require_gpu(placement: Placement, *, software_gpu: bool) -> None:
    """Refuse a run that would be reported as the GPU's and is not; raises Refused."""
    if placement.software and not software_gpu:
        raise Refused(
            f"the GPU is a driver in software: {placement.adapter}",
            "Install the GPU's own Vulkan driver; for proofs alone, set software_gpu: true in the device's gpu entry.",
        )
    if not placement.delegated:
        reasons = "; ".join(placement.refused[:3]) or "it gives no reason"
        raise Refused(
            f"the GPU took none of {placement.total} operators: {reasons}",
            "`pocketbert delegation FILE` says what to change in the graph.",
        )


def vulkan_error() -> str | None:
    """The last error of Vulkan on standard error, as "VK_ERROR_DEVICE_LOST", where that is a file; else None."""
    if not stat.S_ISREG(os.fstat(2).st_mode):
        return None
    found: list[str] = _VULKAN_ERROR.findall(_read_from(Path("/proc/self/fd/2"), 0))
    return found[-1] if found else None


def _refusals(lines: list[str]) -> list[str]:
    start = next((index for index, line in enumerate(lines) if _REFUSALS in line), None)
    if start is None:
        return []
    found = []
    for line in lines[start + 1 :]:
        if _SPLIT.search(line) or _NONE.search(line):
            break
        found.append(line.strip())
    return found


@contextmanager
def overheard() -> Iterator[Callable[[], str]]:
    """What native code writes to standard error inside the block, as a function that reads it so far.

    A regular file is read where it lies, so that a crash leaves the last words in it; anything else is replaced by a
    file for the time of the block, and gets the words afterwards.
    """
    sys.stderr.flush()
    status = os.fstat(2)
    if stat.S_ISREG(status.st_mode):
        yield lambda: _read_from(Path("/proc/self/fd/2"), status.st_size)
        return
    kept = os.dup(2)
    with tempfile.NamedTemporaryFile(prefix="pocketbert-stderr-") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: _read_from(Path(file.name), 0)
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            os.write(2, Path(file.name).read_bytes())


def _read_from(path: Path, offset: int) -> str:
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read().decode("utf-8", errors="replace")

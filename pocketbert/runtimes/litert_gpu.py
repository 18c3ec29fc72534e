"""LiteRT on the GPU (CompiledModel, Vulkan through WebGPU), in a process of its own: drivers crash and hang.

The runtime reports its placement only on standard error, so the lines that it is read from are kept in one place.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pocketbert.errors import DeviceError

Precision = Literal["fp32", "fp16"]
INPUTS_FILE, OUTPUTS_FILE = "inputs.npz", "outputs.npz"
_DRIVER_HINT = (
    "Install the GPU's Vulkan driver. Without a GPU, Mesa's software driver does for proofs: on Debian 12, "
    "mesa-vulkan-drivers and libvulkan1 from bookworm-backports."
)
_ADAPTER = re.compile(r"Selected adapter: (.+)")
_SPLIT = re.compile(r"^(\d+) operations will run on the GPU, and the remaining (\d+) operations will run on the CPU")
_NONE = re.compile(r"No operations will run on the GPU, and all (\d+) operations will run on the CPU")
_NO_GPU = "Failed to initialize WebGPU environment"
_REFUSALS = "Following operations are not supported by GPU delegate"
_PARTITION = re.compile(r"Initializing \S+ API from graph")


@dataclass(frozen=True)
class Placement:
    """Where the runtime put the operators."""

    adapter: str
    # A driver that computes on the CPU: good for proofs, never for times.
    software: bool
    # None stands for all: the runtime gives no number then.
    delegated: int | None
    left: int
    partitions: int
    # The runtime's own lines, "OPERATOR: reason"; one for each kind and reason.
    refused: tuple[str, ...]


@dataclass(frozen=True)
class GpuRun:
    """A model's placement and its first output for each row, float32 [rows, ...]."""

    placement: Placement
    outputs: NDArray[np.float32]


def run_on_gpu(
    model: Path, inputs: Mapping[str, NDArray[np.generic]], precision: Precision, timeout_s: float = 120.0
) -> GpuRun:
    """Run rows (the first axis of every input) one after another; operators that the GPU refuses run on the CPU.

    Raises DeviceError where there is no GPU, or its driver crashes, hangs or fails.
    """
    with tempfile.TemporaryDirectory(prefix="pocketbert-gpu-") as scratch:
        work = Path(scratch)
        np.savez(work / INPUTS_FILE, allow_pickle=False, **inputs)
        said = _run_worker(model, work, precision, timeout_s)
        placement = read_placement(said)
        with np.load(work / OUTPUTS_FILE, allow_pickle=False) as file:
            return GpuRun(placement, file["outputs"])


def read_placement(said: str) -> Placement:
    """Read the runtime's standard error; raises DeviceError where no GPU was selected."""
    adapter = _ADAPTER.search(said)
    if adapter is None:
        raise DeviceError("no GPU was found: LiteRT selected no Vulkan adapter", _DRIVER_HINT)
    lines = said.splitlines()
    split = next((match for line in lines if (match := _SPLIT.search(line))), None)
    none = next((match for line in lines if (match := _NONE.search(line))), None)
    delegated = int(split[1]) if split else 0 if none else None
    left = int(split[2]) if split else int(none[1]) if none else 0
    return Placement(
        adapter=adapter[1].strip(),
        software="adapterType=CPU" in adapter[1],
        delegated=delegated,
        left=left,
        partitions=sum(bool(_PARTITION.search(line)) for line in lines),
        refused=tuple(_refusals(lines)),
    )


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


def _run_worker(model: Path, work: Path, precision: Precision, timeout_s: float) -> str:
    """Run litert_gpu_worker.py; returns its standard error."""
    command = [
        sys.executable,
        "-m",
        "pocketbert.runtimes.litert_gpu_worker",
        str(model.resolve()),
        str(work),
        precision,
    ]
    environment = os.environ | {"POCKETBERT_WORKER": "1"}
    # Mesa's drivers complain where there is none.
    environment.setdefault("XDG_RUNTIME_DIR", str(work))
    try:
        done = subprocess.run(  # noqa: S603
            command, env=environment, capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, timeout=timeout_s,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"the GPU did not answer within {timeout_s:g} s; the process was killed",
            "Try a smaller model; a driver that hangs needs an update.",
        ) from error
    if done.returncode == 0:
        return done.stderr
    if _NO_GPU in done.stderr:
        raise DeviceError("no GPU was found: LiteRT selected no Vulkan adapter", _DRIVER_HINT)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise DeviceError(f"the GPU run of {model} was killed by {name}", "Update the driver, or run it on the CPU.")
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    raise DeviceError(f"the GPU run of {model} failed: {said[-1][:300]}", "Try it on the CPU: `pocketbert predict`.")

"""Run rows in a process of its own with a time limit: a driver that crashes or hangs costs one answer.

A run is a folder: request.json and inputs.npz go in, outputs.npy and then placement.json come out.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pocketbert.errors import DeviceError
from pocketbert.params.section import Section
from pocketbert.process import run_worker
from pocketbert.runtimes.base import Accelerator, Placement, Precision
from pocketbert.runtimes.litert_log import NoGpuError

REQUEST_FILE, INPUTS_FILE, OUTPUTS_FILE, PLACEMENT_FILE = "request.json", "inputs.npz", "outputs.npy", "placement.json"
# The cause and the fix of an error that the process could explain.
ERROR_FILE = "error.json"
PLACEMENT: TypeAdapter[Placement] = TypeAdapter(Placement)
# The worker's own exit code for a machine without a GPU: DeviceError's 9 would not tell it from others.
NO_GPU_EXIT = 90


class RunRequest(Section):
    """What the process is to run: a .tflite file, foreign ones too."""

    model: Path
    accelerator: Accelerator
    precision: Precision
    threads: int


@dataclass(frozen=True)
class IsolatedRun:
    """A model's placement and its main output for each row, float32 [rows, ...]."""

    placement: Placement
    outputs: NDArray[np.float32]


def run_isolated(
    model: Path,
    inputs: Mapping[str, NDArray[np.generic]],
    *,
    accelerator: Accelerator,
    precision: Precision = "fp32",
    threads: int = 1,
    timeout_s: float = 120.0,
) -> IsolatedRun:
    """Run rows (the first axis of every input) of a .tflite file one after another.

    On the GPU, operators that it refuses run on the CPU; the placement says how many, none of them on the GPU included.
    Raises NoGpuError where there is none, DeviceError where its driver crashes, hangs or fails.
    """
    with tempfile.TemporaryDirectory(prefix="pocketbert-run-") as scratch:
        work = Path(scratch)
        np.savez(work / INPUTS_FILE, allow_pickle=False, **inputs)
        request = RunRequest(model=model.resolve(), accelerator=accelerator, precision=precision, threads=threads)
        (work / REQUEST_FILE).write_text(request.model_dump_json(), encoding="utf-8")
        what = f"the run of {model.name} on the {accelerator.upper()}"
        ended = run_worker("pocketbert.runtimes.isolated_worker", work, timeout_s=timeout_s)
        if ended.timed_out:
            raise DeviceError(
                f"{what} did not answer within {timeout_s:g} s; the process was killed",
                "Give it more time (`pocketbert delegation --timeout-s`, delegate.timeout_s); a driver that hangs "
                "needs an update.",
            )
        if ended.returncode == NO_GPU_EXIT:
            raise NoGpuError
        if (work / ERROR_FILE).is_file():
            raise DeviceError(*json.loads((work / ERROR_FILE).read_text(encoding="utf-8")))
        if ended.returncode != 0:
            raise DeviceError(f"{what}: {ended}", "Update the GPU's driver, or run the model on the CPU.")
        placement = PLACEMENT.validate_json((work / PLACEMENT_FILE).read_bytes())
        return IsolatedRun(placement, np.load(work / OUTPUTS_FILE, allow_pickle=False))

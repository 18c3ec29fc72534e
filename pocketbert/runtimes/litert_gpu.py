"""LiteRT on the GPU, as the devices' agent runs it (`pocketbert.devices.agent.litert_gpu`): whole batches of rows."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.data.tokenize import Batch
from pocketbert.devices.agent.litert_gpu import open_gpu
from pocketbert.runtimes.base import Placement, Precision, TensorSpec, fit_rows, own_output, take_row
from pocketbert.runtimes.host_lookup import with_host_inputs
from pocketbert.runtimes.litert_log import as_device_error, require_gpu
from pocketbert.runtimes.litert_runtime import count_operators


class LiteRtGpuRuntime:
    """A TFLite model on the GPU; operators that the GPU refuses run on the CPU with `threads` threads."""

    def __init__(self, path: Path, precision: Precision, threads: int = 1) -> None:
        """Load; raises NoGpuError, and DeviceError where LiteRT cannot compile the file."""
        self._path = path
        with as_device_error():
            self._model = open_gpu(path, precision, threads, count_operators(path))
        self.name = self._model.name
        self.inputs = tuple(TensorSpec(name, d.name, shape) for name, (d, shape) in self._model.inputs.items())

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """The main output, float32 [rows, ...]; rows are run one after another, shorter ones padded.

        Raises DeviceError where the GPU fails in mid-run.
        """
        feed = fit_rows(with_host_inputs(self._path, batch), self.inputs)
        count = len(next(iter(feed.values())))
        with as_device_error():
            rows = [own_output(self._model.run(take_row(feed, row, self.inputs))) for row in range(count)]
        return np.asarray(rows, dtype=np.float32)

    def placement(self) -> Placement:
        """What the runtime said when it loaded the model."""
        return self._model.placement

    def close(self) -> None:
        """Release the model."""
        self._model.close()


def open_on_gpu(artifact: Artifact, threads: int, precision: Precision, *, software_gpu: bool) -> LiteRtGpuRuntime:
    """Load on a GPU that does some of the work; a driver in software only with `software_gpu`. Raises DeviceError."""
    runtime = LiteRtGpuRuntime(artifact.model_path, precision, threads)
    require_gpu(runtime.placement(), software_gpu=software_gpu)
    return runtime

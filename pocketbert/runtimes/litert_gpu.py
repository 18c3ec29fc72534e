"""LiteRT on the GPU: CompiledModel with its Vulkan accelerator (WebGPU).

Drivers crash and hang: open it in a process that may die, as `pocketbert.runtimes.isolated` and the benchmark's worker
do, and leave that process by os._exit: LiteRT's destructors are known to crash at interpreter exit.
"""

import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.gpu_options import GpuOptions
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
from ai_edge_litert.options import CpuOptions, Options
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.data.tokenize import Batch
from pocketbert.errors import DeviceError
from pocketbert.runtimes.base import Placement, Precision, TensorSpec, fit_rows
from pocketbert.runtimes.host_lookup import with_host_inputs
from pocketbert.runtimes.litert_log import NO_GPU, NoGpuError, overheard, read_placement, require_gpu
from pocketbert.runtimes.litert_runtime import count_operators, main_output


class LiteRtGpuRuntime:
    """A TFLite model on the GPU; operators that the GPU refuses run on the CPU with `threads` threads."""

    def __init__(self, path: Path, precision: Precision, threads: int = 1) -> None:
        """Load; raises NoGpuError, and DeviceError where LiteRT cannot compile the file."""
        self.name = f"litert {version('ai-edge-litert')}"
        self._path = path
        options = Options(
            hardware_accelerators=HardwareAccelerator.GPU | HardwareAccelerator.CPU,
            cpu_options=CpuOptions(num_threads=threads),
            # Without the hint a row that takes many seconds is an error: "Failed to lock custom tensor buffer".
            gpu_options=GpuOptions(enforce_f32=precision == "fp32", hint_waiting_for_completion=True),
        )
        with overheard() as said:
            try:
                self._model = CompiledModel.from_file(str(path), options=options)
            except RuntimeError as error:
                raise _explain(path, said()) from error
            self._placement = read_placement(said(), count_operators(path))
        self._signature = signature = next(iter(self._model.get_signature_list()))
        details = self._model.get_input_tensor_details(signature)
        outputs = self._model.get_output_tensor_details(signature)
        self._output = main_output(outputs)
        self._shape = tuple(map(int, outputs[self._output]["shape"]))
        self._dtype = np.dtype(outputs[self._output]["dtype"])
        self.inputs = tuple(
            TensorSpec(name, np.dtype(d["dtype"]).name, tuple(map(int, d["shape"]))) for name, d in details.items()
        )
        self._sources = {name: self._model.create_input_buffer_by_name(signature, name) for name in details}
        self._targets = {name: self._model.create_output_buffer_by_name(signature, name) for name in outputs}

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """The main output, float32 [rows, ...]; rows are run one after another, shorter ones padded."""
        feed = fit_rows(with_host_inputs(self._path, batch), self.inputs)
        target = self._targets[self._output]
        rows = []
        for row in range(len(next(iter(feed.values())))):
            for name, buffer in self._sources.items():
                buffer.write(np.ascontiguousarray(feed[name][row : row + 1]))
            self._model.run_by_name(self._signature, self._sources, self._targets)
            rows.append(target.read(int(np.prod(self._shape)), self._dtype).reshape(self._shape)[0])
        return np.asarray(rows, dtype=np.float32)

    def placement(self) -> Placement:
        """What the runtime said when it loaded the model."""
        return self._placement

    def close(self) -> None:
        """Release the model."""
        self._sources, self._targets = {}, {}
        self._model.close()


def open_on_gpu(artifact: Artifact, threads: int, precision: Precision, *, software_gpu: bool) -> LiteRtGpuRuntime:
    """Load on a GPU that does some of the work; a driver in software only with `software_gpu`. Raises DeviceError."""
    runtime = LiteRtGpuRuntime(artifact.model_path, precision, threads)
    require_gpu(runtime.placement(), software_gpu=software_gpu)
    return runtime


def _explain(path: Path, said: str) -> DeviceError:
    if NO_GPU in said:
        return NoGpuError()
    # "ERROR: ..." is the last consequence; glog's "E0000 ..." lines before it name the cause.
    errors = [line for line in said.splitlines() if re.match(r"E\d{4} ", line)]
    errors = errors or [line for line in said.splitlines() if line.startswith("ERROR")]
    reason = errors[0].rpartition("] ")[2].strip()[:300] if errors else "it gives no reason"
    return DeviceError(
        f"LiteRT cannot load {path} for the GPU: {reason}",
        "Try it on the CPU (`pocketbert predict`); `pocketbert inspect` says whether the file is sound.",
    )

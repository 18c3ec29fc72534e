"""LiteRT on the GPU: CompiledModel with its Vulkan accelerator (WebGPU), of the runtime's wheel and numpy alone.

Drivers crash and hang: open it in a process that may die, and leave that process by os._exit: LiteRT's destructors are
known to crash at interpreter exit.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .engine import Refused, pick_logits
from .litert_log import explain, overheard, read_placement, vulkan_error


class GpuModel:
    """A .tflite file on the GPU; operators that the GPU refuses run on the CPU with `threads` threads."""

    def __init__(self, path: Path, precision: str, threads: int, total_ops: int) -> None:
        """Load to compute in `precision` (fp32 or fp16); `total_ops` counts the file's operators.

        Raises NoGpu, and Refused where LiteRT cannot compile the file.
        """
        litert = {name: importlib.import_module(f"ai_edge_litert.{name}") for name in _MODULES}
        self.name = f"litert {version('ai-edge-litert')}"
        accelerators = litert["hardware_accelerator"].HardwareAccelerator
        options = litert["options"].Options(
            hardware_accelerators=accelerators.GPU | accelerators.CPU,
            cpu_options=litert["options"].CpuOptions(num_threads=threads),
            # Without the hint a row that takes many seconds is an error: "Failed to lock custom tensor buffer".
            gpu_options=litert["gpu_options"].GpuOptions(
                enforce_f32=precision == "fp32", hint_waiting_for_completion=True
            ),
        )
        with overheard() as said:
            try:
                self._model: Any = litert["compiled_model"].CompiledModel.from_file(str(path), options=options)
            except RuntimeError as error:
                raise explain(path, said()) from error
            self.placement = read_placement(said(), total_ops)
        self._bind()

    def _bind(self) -> None:
        """Make the buffers of the first signature's inputs and outputs, once for all runs."""
        import numpy as np

        model = self._model
        self._signature = signature = next(iter(model.get_signature_list()))
        details = model.get_input_tensor_details(signature)
        outputs = model.get_output_tensor_details(signature)
        output = pick_logits(sorted(outputs))
        self._shape = tuple(map(int, outputs[output]["shape"]))
        self._size, self._dtype = int(np.prod(self._shape)), np.dtype(outputs[output]["dtype"])
        # Dtype and shape by name.
        self.inputs = {name: (np.dtype(d["dtype"]), tuple(map(int, d["shape"]))) for name, d in details.items()}
        self._sources = {name: model.create_input_buffer_by_name(signature, name) for name in details}
        self._targets = {name: model.create_output_buffer_by_name(signature, name) for name in outputs}
        self._target = self._targets[output]

    def run(self, row: Mapping[str, Any]) -> Any:
        """The main output of one row, float32 of the model's own shape; inputs of static shape by name.

        Raises Refused where the driver reports an error: it is lost then, and so is the process.
        """
        import numpy as np

        try:
            for name, buffer in self._sources.items():
                values = np.ascontiguousarray(row[name], self.inputs[name][0])
                # Buffers take no int64 by that name.
                buffer.write(values.reshape(-1).view(np.int32) if values.dtype == np.int64 else values)
            self._model.run_by_name(self._signature, self._sources, self._targets)
            values = self._target.read(self._size, self._dtype)
        except RuntimeError as error:
            reason = vulkan_error() or str(error).strip().rpartition("\n")[2].strip("└ ")
            raise Refused(f"the GPU failed in mid-run: {reason}", "Update its driver, or run it on the CPU.") from error
        return np.asarray(values, np.float32).reshape(self._shape)

    def close(self) -> None:
        """Release the model."""
        self._sources, self._targets, self._target = {}, {}, None
        self._model.close()


_MODULES = ("compiled_model", "gpu_options", "hardware_accelerator", "options")


def open_gpu(path: Path, precision: str, threads: int, total_ops: int) -> Any:
    """A `GpuModel`, or its like for fp16_sums_fp32, which LiteRT's Python interface does not offer; raises like it."""
    if precision == "fp16_sums_fp32":
        from .litert_native import NativeGpuModel

        return NativeGpuModel(path, total_ops)
    return GpuModel(path, precision, threads, total_ops)

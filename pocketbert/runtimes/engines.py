"""Open any artifact with the engine of its format."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from pocketbert.artifacts import Artifact, Format, read_artifact
from pocketbert.errors import DeviceError

if TYPE_CHECKING:
    from pocketbert.runtimes.base import Accelerator, Precision, Runtime

# Imported by name and on demand: an ONNX process must not pay for torch.
_MODULES: dict[Format, str] = {
    "torch": "pocketbert.runtimes.torch_runtime",
    "onnx": "pocketbert.runtimes.onnx_runtime",
    "tflite": "pocketbert.runtimes.litert_runtime",
    "ncnn": "pocketbert.runtimes.ncnn_runtime",
}
_GPU_MODULES: dict[Format, str] = {
    "tflite": "pocketbert.runtimes.litert_gpu",
    "ncnn": "pocketbert.runtimes.ncnn_runtime",
}
# A .tflite file that was cut to fit a device's memory.
_PARTS_MODULE = "pocketbert.partition.runtime"


def open_runtime(
    model: Path | Artifact,
    *,
    threads: int = 1,
    accelerator: "Accelerator" = "cpu",
    precision: "Precision" = "fp32",
    software_gpu: bool = False,
) -> "Runtime":
    """Load an artifact (or the folder of one) with `threads` threads on the CPU, or on the GPU in `precision`.

    A GPU's driver may take the process with it: open it only where that costs one row (runtimes/isolated.py,
    the devices' agent). Raises CheckpointError where the folder is no artifact or its torch weights are damaged,
    DeviceError where an ONNX or TFLite file cannot be loaded, and where the GPU is missing, takes none of the operators
    or is a driver in software that `software_gpu` does not allow.
    """
    artifact = read_artifact(model) if isinstance(model, Path) else model
    if accelerator == "gpu":
        if artifact.card.format not in _GPU_MODULES:
            raise DeviceError(f"{artifact.name} is no .tflite file", "LiteRT and ncnn run on the GPU; use the CPU.")
        if artifact.in_parts:
            raise DeviceError(f"{artifact.name} is in parts, which run on the CPU", "Use the whole file on the GPU.")
        gpu = importlib.import_module(_GPU_MODULES[artifact.card.format])
        on_gpu: Runtime = gpu.open_on_gpu(artifact, threads, precision, software_gpu=software_gpu)
        return on_gpu
    if precision != "fp32":
        raise DeviceError(
            "a CPU computes in the file's own precision", "Give fp16 with the GPU alone, or quantize the file to fp16."
        )
    module = _PARTS_MODULE if artifact.in_parts else _MODULES[artifact.card.format]
    runtime: Runtime = importlib.import_module(module).open_artifact(artifact, threads)
    return runtime

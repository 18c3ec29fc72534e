"""Open any artifact with the engine of its format."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from pocketbert.artifacts import Artifact, Format, read_artifact

if TYPE_CHECKING:
    from pocketbert.runtimes.base import Runtime

# Imported by name and on demand: an ONNX process must not pay for torch.
_MODULES: dict[Format, str] = {
    "torch": "pocketbert.runtimes.torch_runtime",
    "onnx": "pocketbert.runtimes.onnx_runtime",
    "tflite": "pocketbert.runtimes.litert_runtime",
}


def open_runtime(model: Path | Artifact, *, threads: int = 1) -> "Runtime":
    """Load an artifact (or the folder of one) on the CPU with `threads` threads.

    Raises CheckpointError where the folder is no artifact or its torch weights are damaged, DeviceError where an
    ONNX or TFLite file cannot be loaded.
    """
    artifact = read_artifact(model) if isinstance(model, Path) else model
    runtime: Runtime = importlib.import_module(_MODULES[artifact.card.format]).open_artifact(artifact, threads)
    return runtime

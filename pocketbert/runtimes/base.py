"""One small interface over torch, ONNX Runtime, and LiteRT on the CPU and on the GPU."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.tokenize import Batch

Accelerator = Literal["cpu", "gpu"]
# Arithmetic of the GPU; a CPU computes as the file says.
Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of a model's input; None stands for a dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Placement:
    """Where a runtime put a model's operators; None where it does not tell."""

    accelerator: Accelerator = "cpu"
    # The GPU as its driver names it.
    adapter: str | None = None
    # A driver that computes on the CPU: good for proofs, never for times.
    software: bool = False
    total: int | None = None
    delegated: int | None = None
    partitions: int | None = None
    # The runtime's own lines, "OPERATOR: reason"; one for each kind and reason.
    refused: tuple[str, ...] = ()


class Runtime(Protocol):
    """A loaded model. `run` binds inputs by name, never by position."""

    # Engine and version, for instance "onnxruntime 1.31.1".
    name: str
    inputs: tuple[TensorSpec, ...]

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits, float32 [rows, classes]. Inputs that the model does not have are ignored."""
        ...

    def placement(self) -> Placement:
        """Where the operators run."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...

"""One small interface over torch, ONNX Runtime and LiteRT."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.tokenize import Batch


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of a model's input; None stands for a dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Runtime(Protocol):
    """A loaded model. `run` binds inputs by name, never by position."""

    # Engine and version, for instance "onnxruntime 1.31.1".
    name: str
    inputs: tuple[TensorSpec, ...]

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits, float32 [rows, classes]. Inputs that the model does not have are ignored."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...

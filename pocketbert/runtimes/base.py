"""One small interface over torch, ONNX Runtime, and LiteRT on the CPU and on the GPU."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.tokenize import Batch
from pocketbert.errors import DeviceError

Accelerator = Literal["cpu", "gpu"]
# Arithmetic of the GPU; a CPU computes as the file says.
Precision = Literal["fp32", "fp16"]
# Largest |logit difference| at which a run is right, in spreads of the reference's logits (numerics/logits.py).
REL_DIFF_MAX: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2}


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


def fit_rows(batch: Mapping[str, NDArray[Any]], inputs: Iterable[TensorSpec]) -> dict[str, NDArray[Any]]:
    """The inputs of a model of static shapes, padded at the end of the second axis; raises DeviceError if too long."""
    feed = {}
    for spec in inputs:
        values = batch[spec.name]
        length = spec.shape[1] if values.ndim > 1 else None
        missing = 0 if length is None else length - values.shape[1]
        if missing < 0:
            raise DeviceError(
                f"rows of {values.shape[1]} tokens for a model of static length {length}",
                "Truncate them, or export again with a larger export_tflite.sequence_length.",
            )
        # The id of a padded position does not matter: its mask is 0.
        padding = [(0, missing if axis == 1 else 0) for axis in range(values.ndim)]
        feed[spec.name] = np.pad(values, padding).astype(spec.dtype)
    return feed

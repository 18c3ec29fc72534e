"""One small interface over torch, ONNX Runtime, and LiteRT on the CPU and on the GPU."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.tokenize import Batch
from pocketbert.devices.agent.placement import Placement as Placement
from pocketbert.errors import DeviceError
from pocketbert.params.delegation import Precision as Precision

Accelerator = Literal["cpu", "gpu"]
# Largest |logit difference| at which a run is right, in spreads of the reference's logits (numerics/logits.py).
REL_DIFF_MAX: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "fp16_sums_fp32": 1e-2}


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

    def placement(self) -> Placement:
        """Where the operators run."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...


def fit_rows(batch: Mapping[str, NDArray[Any]], inputs: Iterable[TensorSpec]) -> dict[str, NDArray[Any]]:
    """The inputs of a model of static shapes, padded at the end of the second axis.

    Rows of a foreign model whose batch is not 1 are whole inputs, [rows, *shape]. Raises DeviceError where an input is
    missing or too long.
    """
    feed = {}
    for spec in inputs:
        if spec.name not in batch:
            raise DeviceError(
                f"the model reads {spec.name!r}, which the rows do not have",
                "A graph of export_tflite.profile: embeddings needs its host_*.npy files beside it; other inputs than "
                "ids, masks and token types are not known.",
            )
        values = batch[spec.name]
        if values.ndim > len(spec.shape):
            feed[spec.name] = values.astype(spec.dtype)
            continue
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


def take_row(feed: Mapping[str, NDArray[Any]], row: int, inputs: Iterable[TensorSpec]) -> dict[str, NDArray[Any]]:
    """What one run gets of rows that `fit_rows` made."""
    return {
        spec.name: feed[spec.name][row] if feed[spec.name].ndim > len(spec.shape) else feed[spec.name][row : row + 1]
        for spec in inputs
    }


def own_output(output: NDArray[Any]) -> NDArray[Any]:
    """A run's output without the axis of a batch of 1."""
    return output[0] if output.shape[:1] == (1,) else output

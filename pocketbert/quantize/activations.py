"""Ranges of a TFLite model's activations over calibration rows."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from pocketbert.quantize.calibration import CalibrationRows

SIGNATURE = "serving_default"


@dataclass
class ActivationRange:
    """Running extremes and mean square of one tensor."""

    minimum: float = 0.0
    maximum: float = 0.0
    square_sum: float = 0.0
    count: int = 0

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in the values of one row. 0 is always inside the range: int8 must represent it exactly."""
        self.minimum = min(self.minimum, float(values.min()))
        self.maximum = max(self.maximum, float(values.max()))
        self.square_sum += float(np.square(values, dtype=np.float64).sum())
        self.count += values.size

    @property
    def crest_factor(self) -> float:
        """(max - min) / root mean square: how many int8 steps a typical value gets is 256 over this."""
        rms = (self.square_sum / self.count) ** 0.5 if self.count else 0.0
        return (self.maximum - self.minimum) / rms if rms > 0 else 0.0


def measure_ranges(model: bytes, tensors: Iterable[int], rows: CalibrationRows) -> dict[int, ActivationRange]:
    """Range of each float activation (index in the first subgraph) over the rows' real tokens.

    Padded positions are left out: nothing reads them, and their values would widen the ranges.
    """
    with keeping_activations():
        # One thread: the last bits of the sums must not depend on the machine's cores.
        interpreter: Any = Interpreter(model_content=model, num_threads=1, experimental_preserve_all_tensors=True)
    runner = interpreter.get_signature_runner(SIGNATURE)
    details = runner.get_input_details()
    ranges = {index: ActivationRange() for index in tensors}
    for row in range(len(rows)):
        runner(**{name: rows.inputs[name][row : row + 1].astype(d["dtype"]) for name, d in details.items()})
        mask = rows.inputs["attention_mask"][row]
        for index, measured in ranges.items():
            measured.update(real_positions(interpreter.get_tensor(index), int(mask.sum()), len(mask)))
    return ranges


@contextmanager
def keeping_activations() -> Iterator[None]:
    """Without LiteRT's warning that keeping every activation takes memory: here that is what it is for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
        yield


def real_positions(values: NDArray[np.float32], tokens: int, length: int) -> NDArray[np.float32]:
    """Cut the sequence axis (the first one of size `length`, the last axis never) to the first `tokens`."""
    for axis in range(values.ndim - 1):
        if values.shape[axis] == length:
            return values.take(range(tokens), axis=axis)
    return values

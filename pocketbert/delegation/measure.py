"""What this machine's GPU does with a .tflite file: where it puts the operators, and whether it computes right."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pocketbert.delegation.reference import quantized_ends, quantizes_activations, write_in_float
from pocketbert.errors import DeviceError, ProofError
from pocketbert.numerics.logits import compare_logits
from pocketbert.runtimes.base import REL_DIFF_MAX, Placement, Precision
from pocketbert.runtimes.isolated import run_isolated

# Two ways to round activations are two models: the GPU may be this many times as far from floating point as the CPU.
ROUNDING_FACTOR = 2.0
# On rows on which that allows more than this, nothing is proven (made-up rows lie outside of what was calibrated).
PROVEN_MAX = 0.5
TIMEOUT_S = 120.0

Rows = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Reference:
    """What the CPU computes: the file itself or, of a quantized one, the same weights in floating point."""

    outputs: NDArray[np.float32]
    # How far a file with quantized activations is from it on the CPU, which rounds them as well; else 0.
    rounding: float
    dequantized: bool

    def limit(self, precision: Precision) -> float:
        """The largest difference at which a GPU is right."""
        return max(REL_DIFF_MAX[precision], ROUNDING_FACTOR * self.rounding)


@dataclass(frozen=True)
class Measurement:
    """A run on the GPU; a failed one has an error and nothing else, one that cannot be judged has `unproven`."""

    precision: Precision
    placement: Placement | None = None
    # NaN where the GPU gives NaN or infinity.
    rel_diff: float | None = None
    limit: float | None = None
    dequantized: bool = False
    rows: int = 0
    # Where the rows come from.
    kind: Literal["real", "made-up"] = "made-up"
    error: str | None = None
    # Why the result could not be compared with the CPU's.
    unproven: str | None = None

    @property
    def right(self) -> bool | None:
        """Whether the GPU gives what the CPU does (NaN is not); None where the run failed or its rows do not tell."""
        if self.rel_diff is None or self.limit is None or self.limit > PROVEN_MAX:
            return None
        return self.rel_diff <= self.limit

    @property
    def delegated(self) -> int:
        """Operators on the GPU."""
        return (self.placement.delegated or 0) if self.placement else 0

    @property
    def whole(self) -> bool:
        """Everything on the GPU in one partition, and right."""
        placed = self.placement
        return bool(self.right) and placed is not None and placed.delegated == placed.total and placed.partitions == 1

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which has no NaN: null stands for it."""
        finite = self.rel_diff is not None and math.isfinite(self.rel_diff)
        return asdict(self) | {
            "rel_diff": self.rel_diff if finite else None,
            "right": self.right,
            "delegated": self.delegated,
            "whole": self.whole,
        }


def run_reference(path: Path, rows: Rows, timeout_s: float = TIMEOUT_S) -> Reference:
    """Run the rows on the CPU in a process of its own; raises DeviceError."""

    def on_cpu(model: Path) -> NDArray[np.float32]:
        return run_isolated(model, rows, accelerator="cpu", timeout_s=timeout_s).outputs

    with tempfile.TemporaryDirectory(prefix="pocketbert-float-") as scratch:
        target = Path(scratch, "float.tflite")
        if not write_in_float(path, target):
            return Reference(on_cpu(path), 0.0, dequantized=False)
        outputs = on_cpu(target)
    rounding = _difference(outputs, on_cpu(path)) if quantizes_activations(path) else 0.0
    return Reference(outputs, rounding, dequantized=True)


def measure(
    path: Path,
    rows: Rows,
    precision: Precision,
    reference: Callable[[], Reference] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Measurement:
    """Run the rows on the GPU and compare them with the reference, `run_reference`'s where none is given.

    Raises NoGpuError and other DeviceErrors where the GPU fails. Where nothing can be compared (the CPU fails, all rows
    give the same, the file reads or gives integers with a scale) the placement stands, unproven.
    """
    # The GPU first: where it fails, there is nothing to compare.
    run = run_isolated(path, rows, accelerator="gpu", precision=precision, timeout_s=timeout_s)
    unproven = Measurement(precision, run.placement, rows=len(run.outputs))
    if named := quantized_ends(path):
        return replace(unproven, unproven=f"{named} is quantized, and integers with a scale are not compared")
    try:
        expected = reference() if reference else run_reference(path, rows, timeout_s)
        difference = _difference(expected.outputs, run.outputs)
    except (DeviceError, ProofError) as error:
        return replace(unproven, unproven=str(error))
    limit = expected.limit(precision)
    return Measurement(precision, run.placement, difference, limit, expected.dequantized, len(run.outputs))


def _difference(expected: NDArray[np.float32], outputs: NDArray[np.float32]) -> float:
    """Largest |difference| in spreads of `expected`; NaN where `outputs` holds NaN or infinity."""
    if not np.isfinite(outputs).all():
        return float("nan")
    return compare_logits(expected.reshape(len(expected), -1), outputs.reshape(len(outputs), -1)).max_rel_diff

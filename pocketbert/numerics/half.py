"""What half precision (IEEE 754 binary16) can hold, and how much of a tensor is lost in it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

HALF_MAX = 65504.0
# Smallest normal number; below it the spacing is constant, 2^-24, and a value is rounded by up to 2^-25.
HALF_NORMAL = 2.0**-14
HALF_ROUNDING = 2.0**-25
# Relative loss (of the root mean square, or of a single number) beyond which a cast counts as unsafe. Rounding of
# normal numbers alone stays under 2^-11 = 4.9e-4, so only denormal numbers get there.
LOSS_MAX = 1e-2
# A single number under this loses more than LOSS_MAX.
SMALLEST_KEPT = HALF_ROUNDING / LOSS_MAX


@dataclass
class HalfRange:
    """Running range of one tensor, and what a cast to half precision would lose of it."""

    minimum: float = math.inf
    maximum: float = -math.inf
    # Smallest |value| that is not 0; where none is denormal, a bound that is not.
    smallest: float = math.inf
    # Values beyond HALF_MAX, and those that are NaN or infinite already.
    overflows: int = 0
    nonfinite: int = 0
    count: int = 0
    _squares: float = 0.0
    _lost_squares: float = 0.0
    # Kind of the row in which |value| was largest.
    row: str = ""

    def update(self, values: Array, row: str = "") -> None:
        """Take in an array of any float dtype."""
        if not values.size:
            return
        self.count += values.size
        # numpy computes half precision in software.
        wide = values.astype(np.float32) if values.dtype == np.float16 else values
        lowest, highest = float(wide.min()), float(wide.max())
        if not math.isfinite(highest - lowest):
            finite = np.isfinite(wide)
            self.nonfinite += int(wide.size - finite.sum())
            wide = wide[finite]
            if not wide.size:
                return
            lowest, highest = float(wide.min()), float(wide.max())
        if max(-lowest, highest) > self.largest or not self.row:
            self.row = row
        self.minimum, self.maximum = min(self.minimum, lowest), max(self.maximum, highest)
        sizes = np.abs(wide).reshape(-1)
        if max(-lowest, highest) > HALF_MAX:
            self.overflows += int((sizes > HALF_MAX).sum())
            sizes = np.minimum(sizes, HALF_MAX)
        self._squares += float(np.dot(sizes, sizes))
        self._lose(sizes[sizes < HALF_NORMAL], float(sizes.max()))

    def _lose(self, denormal: Array, largest: float) -> None:
        """Take in the values under HALF_NORMAL, zeros among them; `largest` stands for the others."""
        present = denormal[denormal > 0].astype(np.float64)
        if present.size:
            lost = present - present.astype(np.float16).astype(np.float64)
            self._lost_squares += float(lost @ lost)
        self.smallest = min(self.smallest, float(present.min()) if present.size else largest or math.inf)

    @property
    def largest(self) -> float:
        """Largest finite |value|, 0 for a tensor without one."""
        return max(abs(self.minimum), abs(self.maximum)) if self.minimum <= self.maximum else 0.0

    @property
    def rms(self) -> float:
        """Root mean square, of values clipped to HALF_MAX."""
        return math.sqrt(self._squares / self.count) if self.count else 0.0

    @property
    def denormal_loss(self) -> float:
        """What denormal numbers lose in the cast, relative to the whole tensor (root of the sums of squares)."""
        return math.sqrt(self._lost_squares / self._squares) if self._squares else 0.0

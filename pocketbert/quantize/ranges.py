"""From the activations seen in calibration to the ranges that int8 covers."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pocketbert.quantize.options import StaticOptions

_BINS = 2048
_LEVELS = 256
# The range of the method "percentile" where `quantize.calibration.clip` is null.
_PERCENTILE = 99.99


@dataclass(frozen=True)
class Range:
    """What int8 has to cover of one tensor, and the root mean square of its values. 0 is always inside."""

    minimum: float
    maximum: float
    rms: float

    @property
    def crest_factor(self) -> float:
        """(max - min) / root mean square: how many int8 steps a typical value gets is 256 over this."""
        return (self.maximum - self.minimum) / self.rms if self.rms > 0 else 0.0


@dataclass
class Histogram:
    """Counts over [-limit, limit]. Where a value lies beyond it the limit doubles and bins merge in pairs."""

    limit: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def update(self, values: NDArray[np.float32]) -> None:
        """Count finite values."""
        furthest = float(np.abs(values).max())
        if self.limit == 0.0:
            # Zeros seen so far lie in the middle whatever the limit is.
            self.limit = furthest
        while furthest > self.limit:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(merged, _BINS // 4)
            self.limit *= 2.0
        place = values.ravel().astype(np.float64) / (self.limit or 1.0) * (_BINS // 2) + _BINS // 2
        self.counts += np.bincount(np.minimum(place.astype(np.int64), _BINS - 1), minlength=_BINS)

    @property
    def edges(self) -> NDArray[np.float64]:
        """The borders of the bins, one more than there are bins."""
        return np.linspace(-self.limit, self.limit, _BINS + 1)

    def within(self, percentile: float) -> tuple[float, float]:
        """The range that holds this share of the values: as many are left out below as above."""
        share = np.cumsum(self.counts) / max(1, self.counts.sum())
        outside = (100.0 - percentile) / 200.0
        # What rounding leaves of the sum of all shares must not move a border by an empty bin.
        left, right = np.searchsorted(share, [outside + 1e-12, 1.0 - outside - 1e-12])
        return float(self.edges[left]), float(self.edges[right + 1])

    def most_informative(self) -> float:
        """The limit whose 256 levels lose the least information, by Kullback and Leibler's divergence.

        Of Migacz, "8-bit inference with TensorRT" (GTC 2017): what a limit cuts off is counted in its outermost bins.
        """
        middle = _BINS // 2
        # Every eighth limit: a finer choice is no better for 256 levels.
        halves = range(_LEVELS // 2, middle + 1, 8)
        losses = [_divergence(self.counts, middle - half, middle + half) for half in halves]
        return float(self.edges[middle + halves[int(np.argmin(losses))]])


def _divergence(counts: NDArray[np.int64], start: int, end: int) -> float:
    inside = counts[start:end].astype(np.float64)
    reference = inside.copy()
    reference[0] += counts[:start].sum()
    reference[-1] += counts[end:].sum()
    filled = inside > 0
    level = np.arange(len(inside)) * _LEVELS // len(inside)
    share = np.bincount(level, inside, _LEVELS) / np.maximum(1, np.bincount(level, filled, _LEVELS))
    coarse = np.where(filled, share[level], 0.0)
    # A value outside of every level is infinitely unlikely; TensorRT's way is a small count instead.
    coarse[(reference > 0) & (coarse == 0)] = 1e-4
    if not coarse.sum():
        return 0.0
    p, q = reference / reference.sum(), coarse / coarse.sum()
    return float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])))


@dataclass
class _Seen:
    minimum: float = 0.0
    maximum: float = 0.0
    square_sum: float = 0.0
    count: int = 0
    histogram: Histogram = field(default_factory=Histogram)


@dataclass
class RangeCollector:
    """Running statistics of named tensors; histograms only where the method or the clipping needs them."""

    method: str = "min_max"
    # Percentile of the values within which a range lies; None: the whole range counts.
    clip: float | None = None
    _seen: dict[str, _Seen] = field(default_factory=dict)

    @classmethod
    def of(cls, options: StaticOptions, clip: float | None) -> "RangeCollector":
        """The collector that a static recipe asks for."""
        return cls(options.ranges, _PERCENTILE if clip is None and options.ranges == "percentile" else clip)

    def update(self, name: str, values: NDArray[np.float32]) -> None:
        """Take in the values of one row."""
        seen = self._seen.setdefault(name, _Seen())
        # 0 is always inside the range: int8 must represent it exactly.
        seen.minimum = min(seen.minimum, float(values.min()))
        seen.maximum = max(seen.maximum, float(values.max()))
        seen.square_sum += float(np.square(values, dtype=np.float64).sum())
        seen.count += values.size
        if self.method == "entropy" or self.clip is not None:
            seen.histogram.update(values)

    def ranges(self) -> dict[str, Range]:
        """The range of every tensor seen."""
        return {name: self._range(seen) for name, seen in self._seen.items()}

    def _range(self, seen: _Seen) -> Range:
        low, high = seen.minimum, seen.maximum
        if self.clip is not None:
            left, right = seen.histogram.within(self.clip)
            low, high = max(low, min(left, 0.0)), min(high, max(right, 0.0))
        if self.method == "entropy":
            limit = seen.histogram.most_informative()
            low, high = max(low, -limit), min(high, limit)
        return Range(low, high, (seen.square_sum / seen.count) ** 0.5)

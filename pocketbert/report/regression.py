"""Whether a device has become slower from one night to another: the very same files, measured again."""

from collections.abc import Iterator
from dataclasses import dataclass

from pocketbert.report.latency import LatencyComparison, compare_latencies
from pocketbert.report.latency_runs import MeasuredRun


@dataclass(frozen=True)
class NightChange:
    """One artifact on one device; `comparison` is None where it could not be measured any more, for `error`."""

    artifact: str
    device: str
    comparison: LatencyComparison | None
    error: str | None = None

    @property
    def regressed(self) -> bool:
        """Slower beyond chance and noise, or not measured any more."""
        return self.comparison is None or self.comparison.outcome == "slower"

    def __str__(self) -> str:
        what = f"not measured any more: {self.error}" if self.comparison is None else str(self.comparison)
        return f"{self.artifact} on {self.device}: {what}"


def compare_nights(before: MeasuredRun, after: MeasuredRun, noise: float) -> Iterator[NightChange]:
    """Changes of the files of equal MD5 that had figures before.

    Other than in `compare_runs`, by which `publish` judges files, a difference that all files share counts: here it is
    the device that is judged. Both judge a pair by `compare_latencies`.
    `noise` (a share: 0.05 is 5 %) stands for the drift from night to night, which the rounds of one night do not tell.
    """
    for key, rounds in before.rounds.items():
        row = after.row(key)
        # A row that is gone is one that the device is not meant to run any more.
        if row is not None and row.md5 == before.md5(key):
            comparison = None
            if key in after.rounds:
                comparison = compare_latencies(rounds, after.rounds[key], interleaved=False, smallest=noise)
            yield NightChange(key, after.benchmark.name, comparison, row.error)

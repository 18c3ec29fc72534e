"""Two artifacts of one run, or two runs of one device: which is faster, and what had changed beside the artifacts."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pocketbert.errors import DeviceError, ParamsError
from pocketbert.report.latency import SMALLEST_DIFFERENCE, LatencyComparison, Rounds, compare_latencies
from pocketbert.report.sources import Benchmark, MeasuredRow, read_benchmark, read_rounds

# Facts of a device that latencies depend on. Others (its load, its free memory) differ from one minute to the next.
_CONDITIONS = ("processor", "cores", "os", "governor")


@dataclass(frozen=True)
class MeasuredRun:
    """One results/benchmark/<device>: its rows, and the raw latencies in ms of each by round."""

    benchmark: Benchmark
    rounds: Mapping[str, Rounds]

    def md5(self, key: str) -> str | None:
        """MD5 of the file that was measured under this name (an artifact's, with "@gpu-..." on a GPU)."""
        row = self.row(key)
        return row.md5 if row else None

    def row(self, key: str) -> MeasuredRow | None:
        """The row of this name, failed or not."""
        return next((row for row in self.benchmark.rows if row.measurement == key), None)


@dataclass(frozen=True)
class Change:
    """One artifact in two runs."""

    artifact: str
    # The very same file: what it differs by is the machine's doing.
    same_file: bool
    comparison: LatencyComparison


@dataclass(frozen=True)
class RunComparison:
    """What became of every artifact that both runs measured."""

    device: str
    changes: list[Change]
    # What else differs between the runs, as "governor: powersave, then performance".
    conditions: list[str]
    # Artifacts that only one of the runs has figures of.
    missing: list[str]

    @property
    def regressions(self) -> list[Change]:
        """The artifacts that became slower."""
        return [change for change in self.changes if change.comparison.outcome == "slower"]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "regressions": [change.artifact for change in self.regressions]}


def read_run(folder: Path) -> MeasuredRun:
    """Read results/benchmark/<device>; raises PocketBertError where a file is missing or broken."""
    return MeasuredRun(read_benchmark(folder), read_rounds(folder))


def compare_artifacts(run: MeasuredRun, first: str, second: str) -> LatencyComparison:
    """Compare two artifacts that were measured in turn; raises ParamsError for one without figures."""
    for name in (first, second):
        if name not in run.rounds:
            raise ParamsError(
                f"{name!r} has no latencies on {run.benchmark.name}", f"Measured: {', '.join(run.rounds) or 'nothing'}."
            )
    return compare_latencies(run.rounds[first], run.rounds[second], interleaved=True)


def compare_runs(before: MeasuredRun, after: MeasuredRun) -> RunComparison:
    """Compare two runs of one device, artifact by artifact.

    A machine is not the same every day. Files that did not change tell by how much: a difference of another one
    counts only beyond theirs. Raises DeviceError where the runs are of different devices or harnesses.
    """
    _require_comparable(before.benchmark, after.benchmark)
    shared = [name for name in after.rounds if name in before.rounds]
    unchanged = {name for name in shared if before.md5(name) == after.md5(name)}
    plain = {name: compare_latencies(before.rounds[name], after.rounds[name], interleaved=False) for name in shared}
    changes = []
    for name in shared:
        others = [abs(plain[other].ratio - 1.0) for other in unchanged - {name}]
        smallest = max([SMALLEST_DIFFERENCE, *others])
        comparison = compare_latencies(before.rounds[name], after.rounds[name], interleaved=False, smallest=smallest)
        changes.append(Change(name, name in unchanged, comparison))
    missing = sorted(set(before.rounds) ^ set(after.rounds))
    return RunComparison(after.benchmark.name, changes, list(_conditions(before.benchmark, after.benchmark)), missing)


def _require_comparable(before: Benchmark, after: Benchmark) -> None:
    if before.name != after.name:
        raise DeviceError(
            f"the runs are of two devices, {before.name} and {after.name}", "Compare runs of the same device."
        )
    versions = [run.harness.get("version") for run in (before, after)]
    if versions[0] != versions[1]:
        raise DeviceError(
            f"the runs were measured by harness versions {versions[0]} and {versions[1]}, which measure differently",
            "Measure the earlier state again with this version.",
        )


def _conditions(before: Benchmark, after: Benchmark) -> Iterator[str]:
    for name in _CONDITIONS:
        was, now = before.device.get(name), after.device.get(name)
        if was != now:
            yield f"{name}: {_said(was)}, then {_said(now)}"
    engines = [{row.runtime for row in run.rows if row.runtime} for run in (before, after)]
    if engines[0] != engines[1]:
        old, new = (", ".join(sorted(names)) for names in (engines[0] - engines[1], engines[1] - engines[0]))
        yield f"runtimes: {old or 'fewer'}, then {new or 'fewer'}"


def _said(value: object) -> str:
    return "unknown" if value is None else str(value)

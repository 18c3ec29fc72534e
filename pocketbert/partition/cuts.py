"""Where to cut a graph so that each part fits: as few parts as can be, cut where the least is handed over."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pocketbert.errors import ParamsError
from pocketbert.partition.lifetime import Schedule
from pocketbert.partition.needs import ENGINE_BYTES, MB, Need, need_of


@dataclass(frozen=True)
class Part:
    """Steps `start` to `end` (excluded) and what they need."""

    start: int
    end: int
    need: Need


def choose_parts(schedule: Schedule, max_memory_mb: float) -> list[Part]:
    """The parts, one where the whole fits; raises ParamsError that names the smallest limit that could be met.

    Of all divisions whose parts fit: the fewest parts, then the fewest bytes handed over in all, then the smallest
    largest part. Exact, by dynamic programming over the ends of parts.
    """
    limit = max_memory_mb * MB
    costs = _Costs(schedule)
    count = len(schedule.steps)
    # End of a part -> (parts, bytes handed over, largest part) of the best division up to there, and its start.
    best: dict[int, tuple[int, int, int]] = {0: (0, 0, 0)}
    origin: dict[int, int] = {}
    for start in range(count):
        if start not in best:
            continue
        parts, handed, largest = best[start]
        for end, need in costs.from_step(start):
            # What lives and what is stored only grows with a longer part; what crosses its end does not.
            if need - costs.crossing[end] > limit:
                break
            division = (parts + 1, handed + costs.crossing[end], max(largest, need))
            if need <= limit and (end not in best or division < best[end]):
                best[end], origin[end] = division, start
    if count not in best:
        smallest = smallest_limit_mb(schedule)
        raise ParamsError(
            f"{schedule.graph.path} does not fit into {max_memory_mb:g} MB, not even in parts: the largest single step "
            f"needs {smallest:.1f} MB",
            f"Set max_memory_mb to {smallest:.1f} or more, or take a recipe with smaller weights (int8, int4).",
        )
    ends = [count]
    while ends[-1]:
        ends.append(origin[ends[-1]])
    bounds = ends[::-1]
    return [Part(a, b, need_of(schedule, a, b)) for a, b in pairwise(bounds)]


def smallest_limit_mb(schedule: Schedule) -> float:
    """`smallest_limit_bytes` in MB, rounded up to a tenth."""
    return -(-smallest_limit_bytes(schedule) // (MB / 10)) / 10


def smallest_limit_bytes(schedule: Schedule) -> int:
    """The smallest limit for which there is a division: its largest part."""
    costs = _Costs(schedule)
    count = len(schedule.steps)
    # End of a part -> the largest part of the best division up to there.
    best = [0, *[2**63] * count]
    for start in range(count):
        for end, need in costs.from_step(start):
            if need - costs.crossing[end] >= best[count]:
                break
            best[end] = min(best[end], max(best[start], need))
    return best[count]


class _Costs:
    """The total need of all parts, each from that of the part one step shorter."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.crossing: Sequence[int] = [schedule.crossing_bytes(k) for k in range(len(schedule.steps) + 1)]

    def from_step(self, start: int) -> Iterator[tuple[int, int]]:
        """(end, need) of every part that starts at `start`, the shortest first."""
        resident: dict[int, int] = {}
        weights = live = 0
        for end, step in enumerate(self._schedule.steps[start:], start + 1):
            for tensor, size in step.resident.items():
                weights += max(0, size - resident.get(tensor, 0))
                resident[tensor] = max(size, resident.get(tensor, 0))
            live = max(live, self._schedule.live_bytes[end - 1])
            yield end, ENGINE_BYTES + weights + live + self.crossing[start] + self.crossing[end]

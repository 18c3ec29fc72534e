"""What a graph, or a range of its steps as a part of its own, needs in memory.

    need = engine + weights + activations + handed over

- engine: what LiteRT itself takes beside any model, measured (benchmarks/memory.py);
- weights: what becomes resident of the constants (`Step.resident`): a weight that XNNPACK packs counts twice;
- activations: the largest sum of the tensors that live during one step;
- handed over: what comes into a part, leaves it or passes it by, which the caller holds beside the interpreter.
"""

from dataclasses import asdict, dataclass

from pocketbert.partition.lifetime import Schedule, arena_bytes

MB = 1e6
# An interpreter of a model of a few bytes: its code pages, the delegate, and heap that is not given back.
ENGINE_BYTES = 6_000_000


@dataclass(frozen=True)
class Need:
    """Bytes in memory over the process without a model."""

    engine_bytes: int
    weights_bytes: int
    activations_bytes: int
    handed_over_bytes: int

    @property
    def total_bytes(self) -> int:
        """Their sum."""
        return self.engine_bytes + self.weights_bytes + self.activations_bytes + self.handed_over_bytes


@dataclass(frozen=True)
class MemoryPlan:
    """What a whole file needs."""

    file_bytes: int
    # Constants as stored.
    stored_bytes: int
    # The largest sum of live tensors, the step at which it is reached, and what one arena for all of them takes.
    peak_step: str
    arena_bytes: int
    need: Need

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {**asdict(self), "total_bytes": self.need.total_bytes}


def plan_memory(schedule: Schedule) -> MemoryPlan:
    """The plan of the whole graph, run in one piece."""
    graph, live = schedule.graph, schedule.live_bytes
    peak = max(range(len(live)), key=live.__getitem__)
    operator = schedule.steps[peak].operator
    return MemoryPlan(
        file_bytes=graph.size_bytes,
        stored_bytes=sum(t.stored.size_bytes for t in graph.tensors if t.stored),
        peak_step=f"{operator.kind}#{operator.index}",
        arena_bytes=arena_bytes((schedule.size(t), *life) for t, life in schedule.lives.items()),
        need=need_of(schedule, 0, len(schedule.steps)),
    )


def need_of(schedule: Schedule, start: int, end: int) -> Need:
    """What the steps `start` to `end` (excluded) need as a part of their own."""
    resident: dict[int, int] = {}
    for step in schedule.steps[start:end]:
        for tensor, size in step.resident.items():
            resident[tensor] = max(size, resident.get(tensor, 0))
    return Need(
        engine_bytes=ENGINE_BYTES,
        weights_bytes=sum(resident.values()),
        activations_bytes=max(schedule.live_bytes[start:end]),
        handed_over_bytes=schedule.crossing_bytes(start) + schedule.crossing_bytes(end),
    )

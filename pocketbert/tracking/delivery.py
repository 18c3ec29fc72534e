"""One spool into the store: in order, in batches, and each event once however often it is tried."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pocketbert.tracking.spool import End, Points, Position, Spool, Start, Texts, left_behind

if TYPE_CHECKING:
    from pocketbert.tracking.store import Store

_log = logging.getLogger(__name__)


class Delivery:
    """Delivers one locked spool to one store.

    Exactly once: the run is found by its execution id before it is created, the position is saved after
    every batch, and a batch that was taken but not confirmed is taken again as the same points (a metric's
    step, time and value are its key in MLflow's SQL stores) and the same tags.
    """

    def __init__(self, spool: Spool, store: "Store") -> None:
        self.spool = spool
        self._store = store
        self._position = spool.position(store.key)

    @property
    def run_id(self) -> str | None:
        """The MLflow run, once it is known."""
        return self._position.run_id

    def forward(self) -> bool:
        """Deliver all whole events; True when the end of the execution is among what has been delivered."""
        while not self._position.ended:
            batch = list(self.spool.read(self._position.offset))
            if not batch:
                return False
            self._deliver([event for event, _ in batch if event is not None], batch[-1][1])
        return True

    def close_killed(self) -> None:
        """The owner died without a word: the run ends as KILLED when it was last heard of."""
        if self.run_id is not None and not self._position.ended:
            self._store.tag(self.run_id, {"error": "killed: the process ended without a word"})
            self._store.end(self.run_id, "KILLED", self._position.time_ms)

    def _deliver(self, events: list[Start | Points | Texts | End], offset: int) -> None:
        for event in events:
            if isinstance(event, Start) and self.run_id is None:
                run_id = self._store.open_stage_run(event)
                self._move(self._position.model_copy(update={"run_id": run_id}))
        if self.run_id is None:
            # Without its first line nobody knows what run it was.
            _log.warning("%s does not begin with a start event; it is not sent", self.spool.path)
            self._move(self._position.model_copy(update={"offset": offset, "ended": True}))
            return
        points = [(e.time_ms, e.step, e.metrics) for e in events if isinstance(e, Points)]
        self._store.log_points(self.run_id, points)
        self._store.tag(self.run_id, {k: v for e in events if isinstance(e, Texts) for k, v in e.tags.items()})
        ends = [event for event in events if isinstance(event, End)]
        for end in ends:
            self._store.end(self.run_id, end.status, end.time_ms)
        last = events[-1].time_ms if events else self._position.time_ms
        self._move(self._position.model_copy(update={"offset": offset, "time_ms": last, "ended": bool(ends)}))

    def _move(self, position: Position) -> None:
        self.spool.save_position(position)
        self._position = position


def deliver_left_behind(folder: Path, store: "Store") -> int:
    """Deliver what other executions left: unsent events, and runs whose owner was killed.

    Returns how many spools were settled; raises what the store raises, after which the rest is still there.
    """
    settled = 0
    for path in left_behind(folder):
        spool = Spool.adopt(path)
        if spool is None:
            continue
        try:
            delivery = Delivery(spool, store)
            if not delivery.forward():
                delivery.close_killed()
            spool.remove()
            settled += 1
        finally:
            spool.close()
    return settled

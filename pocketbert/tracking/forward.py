"""The process beside a stage that carries its events to the store.

    python -m pocketbert.tracking.forward SPOOL DESCRIPTOR

A process and not a thread: importing mlflow takes a core for seconds, which the stage needs for its own imports.
It shares the lock on the spool with the stage (the inherited descriptor) and reads the parameters as one line of JSON
from standard input, whose end is the end of the stage. The stage does not wait for it; `publish` does.
"""

import logging
import select
import signal
import sys
from pathlib import Path

from pocketbert.params import PublishParams
from pocketbert.redaction import hide_secrets
from pocketbert.tracking.delivery import Delivery, deliver_left_behind
from pocketbert.tracking.location import require_listener, spool_folder, tracking_uri
from pocketbert.tracking.spool import Spool
from pocketbert.tracking.store import Store, import_mlflow, patience

_PERIOD_S = 2.0
_LONGEST_PAUSE_S = 60.0
_REQUEST_TIMEOUT_S = 4
# So long it goes on after its stage; then the record is left to the next stage.
_LAST_WORDS_S = 60

_log = logging.getLogger("pocketbert.tracking")


class Forwarder:
    """Delivers one execution's spool, then what others left; never raises."""

    def __init__(self, spool: Spool, params: PublishParams) -> None:
        self._spool = spool
        self._params = params
        self._store: Store
        self._delivery: Delivery | None = None
        self._failures = 0
        # Whether what others left behind has been looked after.
        self._swept = False

    def run(self) -> None:
        """Forward until the end is delivered, or the stage has ended and the store does not answer."""
        pause: float | None = 0.0
        with patience(_REQUEST_TIMEOUT_S, 0):
            while pause is not None:
                pause = self._attempt(ending=_stage_has_ended(pause))

    def _attempt(self, *, ending: bool) -> float | None:
        """One round; returns the pause before the next one, None when there is nothing more to do."""
        try:
            done = self._forward(ending=ending)
        # Whatever mlflow or a driver raises: the stage goes on, and what was not sent stays in the spool.
        except Exception as error:  # noqa: BLE001
            self._complain(error)
            self._failures += 1
            if ending:
                _log.warning("a record is kept in %s; the next stage or `dvc repro publish` sends it", self._spool.path)
            return None if ending else min(_PERIOD_S * 2.0**self._failures, _LONGEST_PAUSE_S)
        if self._failures:
            _log.info("the MLflow store answers again")
        self._failures = 0
        return None if done else _PERIOD_S

    def _forward(self, *, ending: bool) -> bool:
        """Deliver what there is; True when the execution is settled."""
        if self._delivery is None:
            self._delivery = self._open()
        ended = self._delivery.forward()
        if ending and not ended:
            self._delivery.close_killed()
        if ended or ending:
            self._spool.remove()
        if not self._swept:
            self._swept = True
            self._sweep(self._store)
        return ended or ending

    def _open(self) -> Delivery:
        # Before mlflow's import.
        require_listener(tracking_uri(self._params), _REQUEST_TIMEOUT_S)
        import_mlflow()
        self._store = Store(self._params)
        return Delivery(self._spool, self._store)

    def _sweep(self, store: Store) -> None:
        try:
            deliver_left_behind(spool_folder(), store)
        # Another execution's record must not hold up this one's.
        except Exception as error:  # noqa: BLE001
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if self._failures == 0:
            reason = hide_secrets(next(iter(str(error).splitlines()), type(error).__name__))
            shown = hide_secrets(tracking_uri(self._params))
            _log.warning("MLflow at %s does not take the record, which is kept and sent later: %s", shown, reason)


def _stage_has_ended(timeout_s: float) -> bool:
    """Wait for the end of standard input, which nobody writes to any more."""
    ended = bool(select.select([sys.stdin], [], [], timeout_s)[0])
    if ended:
        signal.signal(signal.SIGALRM, _give_up)
        signal.alarm(_LAST_WORDS_S)
    return ended


def _give_up(*_: object) -> None:
    """Ends the last attempt, which then says where the record is kept."""
    raise TimeoutError(f"no answer within {_LAST_WORDS_S} s")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    _log.setLevel(logging.INFO)
    Forwarder(Spool(Path(sys.argv[1]), int(sys.argv[2])), PublishParams.model_validate_json(sys.stdin.readline())).run()

"""The thread that carries a stage's events to the store while the stage goes on."""

import logging
import threading

from pocketbert.params import PublishParams
from pocketbert.redaction import hide_secrets
from pocketbert.tracking.delivery import Delivery, deliver_left_behind
from pocketbert.tracking.location import is_embedded, spool_folder, tracking_uri
from pocketbert.tracking.spool import Spool
from pocketbert.tracking.store import Store, import_mlflow, patience

_PERIOD_S = 2.0
_LONGEST_PAUSE_S = 60.0
_REQUEST_TIMEOUT_S = 4
# How long a stage waits for its record: for a server, and for a data base of this (perhaps busy) machine,
# whose first use runs MLflow's migrations.
_SERVER_WAIT_S = 5.0
_EMBEDDED_WAIT_S = 30.0
_IMPORT_WAIT_S = 60.0

_log = logging.getLogger(__name__)


class Sender(threading.Thread):
    """Delivers one execution's spool, then what others left; never raises, and never holds up its stage."""

    def __init__(self, spool: Spool, params: PublishParams) -> None:
        super().__init__(name="mlflow-sender", daemon=True)
        self._spool = spool
        self._params = params
        self._wait_s = _EMBEDDED_WAIT_S if is_embedded(tracking_uri(params)) else _SERVER_WAIT_S
        self._store: Store
        self._delivery: Delivery | None = None
        self._imported = threading.Event()
        # Set when the run is known, or when the first attempt to learn it has failed.
        self._attempted = threading.Event()
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._failures = 0
        # Whether what others left behind has been looked after.
        self._swept = False

    def run_id(self) -> str | None:
        """The MLflow run, None while the store cannot be reached; waits for a first attempt, not for ever."""
        if self._delivery is None or self._delivery.run_id is None:
            self._imported.wait(_IMPORT_WAIT_S)
            self._attempted.wait(self._wait_s)
        return self._delivery.run_id if self._delivery else None

    def finish(self) -> bool:
        """The last event is in the spool: deliver it, within limits; True when everything is in the store."""
        self._ending.set()
        self._wake.set()
        self._imported.wait(_IMPORT_WAIT_S)
        self.join(self._wait_s)
        if not self.is_alive():
            # From now on anybody may send the rest; a sender that hangs keeps the lock until this process ends.
            self._spool.close()
        return not self._spool.path.exists()

    def run(self) -> None:
        """Forward until the end is delivered, or the stage has ended and the store does not answer."""
        pause: float | None = 0.0
        with patience(_REQUEST_TIMEOUT_S, 0):
            while pause is not None:
                self._wake.wait(pause)
                self._wake.clear()
                pause = self._attempt()

    def _attempt(self) -> float | None:
        """One round; returns the pause before the next one, None when there is nothing more to do."""
        ending = self._ending.is_set()
        try:
            ended = self._forward()
        # Whatever mlflow or a driver raises: the stage goes on, and what was not sent stays in the spool.
        except Exception as error:  # noqa: BLE001
            self._complain(error)
            self._failures += 1
            return None if ending else min(_PERIOD_S * 2.0**self._failures, _LONGEST_PAUSE_S)
        finally:
            self._imported.set()
            self._attempted.set()
        if self._failures:
            _log.info("the MLflow store answers again")
        self._failures = 0
        return None if ended or ending else _PERIOD_S

    def _forward(self) -> bool:
        if self._delivery is None:
            import_mlflow()
            self._imported.set()
            self._store = Store(self._params)
            self._delivery = Delivery(self._spool, self._store)
        ended = self._delivery.forward()
        self._attempted.set()
        if ended:
            self._spool.remove()
        if not self._swept:
            self._swept = True
            self._sweep(self._store)
        return ended

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

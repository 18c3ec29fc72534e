"""The stage's side of the process that carries its events to the store (forward.py)."""

import os
import select
import subprocess
import sys
import time

from pocketbert.params import PublishParams
from pocketbert.tracking.location import is_embedded, tracking_uri
from pocketbert.tracking.spool import Spool

# What forward.py says when it is about to ask the store.
READY = "ready"
# How long a stage waits for its record: for a server, and for a data base of this (perhaps busy) machine,
# whose first use runs MLflow's migrations.
_SERVER_WAIT_S = 5.0
_EMBEDDED_WAIT_S = 30.0
_IMPORT_WAIT_S = 60.0


class Sender:
    """A running forward.py; ends with the stage, however that ends. Raises OSError where none can be started."""

    def __init__(self, spool: Spool, params: PublishParams) -> None:
        self._spool = spool
        self._wait_s = _EMBEDDED_WAIT_S if is_embedded(tracking_uri(params)) else _SERVER_WAIT_S
        self._said = b""
        command = [sys.executable, "-m", "pocketbert.tracking.forward", str(spool.path), str(spool.descriptor)]
        self._process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(spool.descriptor,),
            # Ctrl-C in the terminal is for the stage, whose last words are still to be sent.
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._stdin.write(params.model_dump_json().encode() + b"\n")
        self._stdin.flush()

    def run_id(self) -> str | None:
        """The MLflow run, None while the store cannot be reached; waits for a first attempt, not for ever."""
        self._listen(1, _IMPORT_WAIT_S)
        self._listen(2, self._wait_s)
        # A store that was down may have answered since.
        self._listen(len(self._heard) + 1, 0.0)
        return next((line for line in reversed(self._heard) if line not in ("", READY)), None)

    def finish(self) -> bool:
        """The last event is in the spool: wait for its delivery, within limits; True when all is in the store."""
        self._stdin.close()
        self._listen(1, _IMPORT_WAIT_S)
        try:
            self._process.wait(self._wait_s)
        except subprocess.TimeoutExpired:
            # Whatever it was doing is repeated from the spool, without doubling anything.
            self._process.kill()
            self._process.wait()
        # Its last lines, for who asks for the run's id afterwards.
        self._listen(sys.maxsize, 0.0)
        self._stdout.close()
        self._spool.close()
        return not self._spool.path.exists()

    @property
    def _heard(self) -> list[str]:
        """Its whole lines so far."""
        return self._said.decode().split("\n")[:-1]

    def _listen(self, lines: int, timeout_s: float) -> None:
        """Read what the process says until so many lines were heard, it has ended, or the time is up."""
        deadline = time.monotonic() + timeout_s
        while len(self._heard) < lines:
            left = max(deadline - time.monotonic(), 0.0)
            if self._stdout.closed or not select.select([self._stdout], [], [], left)[0]:
                return
            said = os.read(self._stdout.fileno(), 4096)
            if not said:
                return
            self._said += said

"""The stage's side of the process that carries its events to the store (forward.py)."""

import subprocess
import sys

from pocketbert.params import PublishParams
from pocketbert.tracking.spool import Spool


class Sender:
    """A running forward.py. It outlives the stage, however that ends, until what is in the spool is sent or kept.

    Raises OSError where none can be started.
    """

    def __init__(self, spool: Spool, params: PublishParams) -> None:
        self._spool = spool
        command = [sys.executable, "-m", "pocketbert.tracking.forward", str(spool.path), str(spool.descriptor)]
        self._process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            # What mlflow prints is no output of the stage.
            stdout=subprocess.DEVNULL,
            pass_fds=(spool.descriptor,),
            # Ctrl-C in the terminal is for the stage, whose last words are still to be sent.
            start_new_session=True,
        )
        assert self._process.stdin is not None  # noqa: S101
        self._stdin = self._process.stdin
        self._stdin.write(params.model_dump_json().encode() + b"\n")
        self._stdin.flush()

    def let_go(self) -> None:
        """The last event is in the spool: the process sends it and ends by itself."""
        self._stdin.close()
        self._spool.close()

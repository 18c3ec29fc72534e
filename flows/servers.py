"""Server processes of this machine: started together, shown line by line, ended together."""

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress

import psutil

from pocketbert.errors import ParamsError

HOST = "127.0.0.1"
# A worker waits for the stage of its flow to end on an interrupt.
_GRACE_S = 20


class Server:
    """A Python program that runs until `end`; its output appears line by line under its name."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.child", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            # Out of reach of the terminal's Ctrl-C: what ends first is decided here.
            env={**os.environ, **environment}, start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._show, daemon=True).start()

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    def end(self) -> None:
        """Ask it and everything that it started to end; kill what is still there after 20 s."""
        # Flow runs have sessions of their own: the tree has to be taken before its root is gone.
        tree = _tree(self.process.pid)
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(tree, timeout=_GRACE_S)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        # Where the root was killed before, its children have lost it, but not its group.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _show(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 (for the type checker: PIPE is set above)
        for line in self.process.stdout:
            say(self.name, line.rstrip())


def say(name: str, line: str) -> None:
    """One line of the common log."""
    print(f"{name:<8}| {line}", flush=True)


def port_from(variable: str, default: int) -> int:
    """The port that an environment variable names; raises ParamsError where it cannot be listened on."""
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ParamsError(f"{variable}={text} is no port", "Give a number from 1 to 65535.")
    port = int(text)
    with socket.socket() as probe:
        # As servers do: connections of a server that has ended do not hold its port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ParamsError(
                f"port {port} on {HOST} cannot be listened on ({error.strerror})",
                f"End what listens there, or take another port: {variable}={port + 1} make up",
            ) from error
    return port


def answers(url: str) -> bool:
    """Whether a page can be had."""
    try:
        with urllib.request.urlopen(url, timeout=2) as page:  # noqa: S310 (a URL of our own)
            return bool(page.status == 200)
    except OSError:
        return False


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []

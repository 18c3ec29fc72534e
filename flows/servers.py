"""Server processes of this machine: started together, shown line by line, ended together."""

import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import FrameType

import psutil

from flows.child import below, start_child
from pocketbert.errors import ParamsError, PocketBertError

HOST = "127.0.0.1"
# MLflow 3 shows its pages for language-model traces else; it remembers the choice.
MODEL_PAGES = "workflowType=machine_learning"
# A worker waits for the stage of its flow to end on an interrupt.
_GRACE_S = 20
_START_S = 300


class ServerError(PocketBertError):
    """A server did not start, or ended by itself."""


class Server:
    """A Python program that runs until `end`; its output appears line by line under its name."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        # What ends first on Ctrl-C is decided by `end`.
        self.process = start_child(command, environment)
        threading.Thread(target=self._show, daemon=True).start()

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    def end(self) -> None:
        """Ask it and everything that it started to end; kill what is still there after 20 s."""
        tree = [psutil.Process(self.process.pid), *below(self.process.pid)] if self.exit_status is None else []
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(tree, timeout=_GRACE_S)
        # The guardian kills what is left (flows/child.py).
        assert self.process.stdin is not None  # noqa: S101 (for the type checker: it is a pipe)
        self.process.stdin.close()
        if left:
            psutil.wait_procs(left, timeout=_GRACE_S)
        # Where the guardian itself was killed, its children have lost it, but not its group.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _show(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 (for the type checker: it is a pipe)
        for line in self.process.stdout:
            say(self.name, line.rstrip())


def foreground(start: Callable[[list[Server]], None]) -> int:
    """Have `start` add servers, then watch them until a signal (exit status 0) or until one of them ends (1)."""
    servers: list[Server] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        start(servers)
        while True:
            _require_running(servers)
            time.sleep(0.5)
    except KeyboardInterrupt:
        return 0
    except PocketBertError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    finally:
        # A second Ctrl-C would leave some of them running.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for server in reversed(servers):
            say("up", f"ending {server.name}")
            server.end()


def wait_for_page(servers: list[Server], url: str) -> None:
    """Wait until a page can be had; raises ServerError."""
    limit = time.monotonic() + _START_S
    while not answers(url):
        _require_running(servers)
        if time.monotonic() > limit:
            raise ServerError(f"{url} does not answer after {_START_S} s", "Its lines above say why.")
        time.sleep(0.2)


def say(name: str, line: str) -> None:
    """One line of the common log."""
    print(f"{name:<8}| {line}", flush=True)


def port_from(variable: str, default: int) -> int:
    """The port that an environment variable names; raises ParamsError where it cannot be listened on."""
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ParamsError(f"{variable}={text} is no port", "Give a number from 1 to 65535.")
    port = int(text)
    require_free(HOST, port, f"take another port: {variable}={port + 1} make up")
    return port


def require_free(host: str, port: int, otherwise: str) -> None:
    """Raises ParamsError where an address cannot be listened on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As servers do: connections of a server that has ended do not hold its port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ParamsError(
                f"port {port} on {host} cannot be listened on ({error.strerror})",
                f"End what listens there, or {otherwise}",
            ) from error


def answers(url: str) -> bool:
    """Whether a page can be had."""
    try:
        with urllib.request.urlopen(url, timeout=2) as page:  # noqa: S310 (a URL of our own)
            return bool(page.status == 200)
    except OSError:
        return False


def _require_running(servers: list[Server]) -> None:
    for server in servers:
        if (status := server.exit_status) is not None:
            raise ServerError(
                f"{server.name} ended by itself with {status}", "Its lines above say why; the others are ended."
            )


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

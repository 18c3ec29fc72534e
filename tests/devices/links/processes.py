"""What the servers under test have in common: free ports, child processes, a slow wire."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def await_port(port: int, alive: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until a server answers; raises RuntimeError where it died or does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and alive():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing answers on port {port}")


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether a condition came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return False


def descendants(pid: int) -> list[int]:
    """All processes below one, parents first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += below
    return found


def listening(pid: int) -> set[str]:
    """The local addresses (hexadecimal, as the kernel prints them) on which a process listens for TCP."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(str(entry.readlink()).partition("socket:[")[2].rstrip("]"))
        except FileNotFoundError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1].partition(":")[0])
    return found


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


class _Wire(threading.Thread):
    """One direction of a connection, at so many bytes a second and so much later."""

    def __init__(self, source: socket.socket, sink: socket.socket, rate: float, delay_s: float) -> None:
        super().__init__(daemon=True)
        self.source, self.sink, self.rate, self.delay_s = source, sink, rate, delay_s

    def run(self) -> None:
        try:
            while piece := self.source.recv(8192):
                time.sleep(self.delay_s + len(piece) / self.rate)
                self.sink.sendall(piece)
        except OSError:
            pass
        finally:
            for end in (self.source, self.sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue


@contextmanager
def slow_wire(port: int, rate: float, delay_s: float = 0.0) -> Iterator[int]:
    """A loopback port that leads to `port` at `rate` bytes a second each way."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            # Small buffers: what is under way is bounded, as on a radio link.
            far = socket.socket()
            for end in (near, far):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            far.connect(("127.0.0.1", port))
            _Wire(near, far, rate, delay_s).start()
            _Wire(far, near, rate, delay_s).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()

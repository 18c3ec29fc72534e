"""A phone or board over ADB: adbutils for the connection, adb's shell protocol for commands and files.

adb forwards no keep-alive and has been seen to report exit code 0 when the device went away in the middle of a
command. So each command prints an end marker of its own with its exit code, and a silent device is asked again.
"""

import contextlib
import io
import secrets
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import adbutils

from pocketbert.devices.inventory import AdbParams
from pocketbert.devices.links.adb_server import AdbServer, Connection
from pocketbert.devices.links.base import Finished, LinkLost
from pocketbert.devices.links.posix import PosixLink
from pocketbert.devices.links.scripts import printable, quote
from pocketbert.errors import DeviceError

_CONNECT_S = 15.0
# For the server to find a device that is there.
_FIND_S = 5.0
# A command that is silent for the first is checked on; the device then has the second to answer anything at all.
SILENCE_S = 1.0
ANSWER_S = 5.0
_PIECE_BYTES = 64 << 10
# A service's name has a length of four hexadecimal digits.
_LONGEST = 0xFFFF
# Packets of adb's shell protocol (shell_protocol.h): a kind, a length (little-endian), data.
_HEADER = struct.Struct("<BI")
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)


class AdbLink(PosixLink):
    """A device by its serial number, or by HOST:PORT. It must have accepted this machine's key."""

    def __init__(self, name: str, params: AdbParams) -> None:
        self.name, self.params = name, params
        self._server: AdbServer | None = None

    def connect(self) -> None:
        """As in Link."""
        self.close()
        network = ":" in self.params.serial
        self._server = AdbServer(self.params.serial, usb=not network, port=self.params.server_port)
        try:
            if network:
                answer = self._ask(f"host:connect:{self.params.serial}")
                if answer.startswith(("failed to connect", "unable to connect", "cannot connect")):
                    raise self._lost(printable(answer))
            self._await_device()
            if "shell_v2" not in self._ask(f"host-serial:{self.params.serial}:features").split(","):
                raise DeviceError(f"{self.name}: its adb is too old", "Android 7 or newer is needed.")
            self.prove_shell()
        except BaseException:
            self.close()
            raise

    @property
    def server_port(self) -> int:
        """Where our adb server listens, for an `adb -P` of one's own."""
        return self._running().port

    def run(self, argv: Sequence[str], *, timeout_s: float, input: bytes | None = None) -> Finished:
        """As in Link."""
        return self._exchange(quote(argv), io.BytesIO(input or b""), timeout_s)

    def send(self, argv: Sequence[str], stream: BinaryIO, size: int) -> Finished:  # noqa: ARG002
        """As in PosixLink."""
        return self._exchange(quote(argv), stream, None)

    def close(self) -> None:
        """As in Link."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _await_device(self) -> None:
        deadline = time.monotonic() + _FIND_S
        state = "not found"
        while time.monotonic() < deadline:
            try:
                state = self._ask(f"host-serial:{self.params.serial}:get-state")
            except LinkLost as error:
                state = error.cause.rpartition(": ")[2]
            if state == "device":
                return
            if "unauthorized" in state:
                raise DeviceError(
                    f"{self.name}: {self.params.serial} has not accepted this machine's key",
                    "Unlock its screen, allow USB debugging, and run it again.",
                )
            time.sleep(0.2)
        raise self._lost(f"its state is {printable(state)!r}")

    def _exchange(self, line: str, stream: BinaryIO, timeout_s: float | None) -> Finished:
        """Run a line in the device's shell with `stream` as its input."""
        marker = secrets.token_hex(8).encode()
        # adbd drops output that is still under way when a command ends before its input: `cat` takes what is left.
        ended = f"code=$?; cat >/dev/null; printf '%s %d' {marker.decode()} $code"
        service = f"shell,v2,raw:({line}); {ended}"
        if len(service.encode()) > _LONGEST:
            raise DeviceError(f"`{printable(line)}` is too long for adb", "Send what is long as the command's input.")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._translated(), self._open(service) as connection:
            # Waiting is `_receive`'s: a socket's time limit would bind the feeder of a slow device too.
            connection.conn.settimeout(None)
            feeder = _Feeder(connection.conn, stream)
            feeder.start()
            try:
                stdout, stderr = self._receive(connection.conn, feeder, deadline)
            except _Late as error:
                raise DeviceError(
                    f"{self.name}: `{printable(line)}` did not end within {timeout_s:g} s", "Look at the device's load."
                ) from error
            finally:
                # Wakes the feeder of a command that no longer reads.
                with contextlib.suppress(OSError):
                    connection.conn.shutdown(socket.SHUT_RDWR)
                feeder.join()
        output, _, code = stdout.rpartition(marker)
        if not code.strip().isdigit():
            raise self._lost("it broke in the middle of a command")
        return Finished(int(code), output, stderr)

    def _receive(self, wire: socket.socket, feeder: "_Feeder", deadline: float | None) -> tuple[bytes, bytes]:
        """What the command prints until it ends, or until the connection does: the marker tells which."""
        kept: dict[int, bytearray] = {_STDOUT: bytearray(), _STDERR: bytearray()}
        rest, fed = bytearray(), 0
        while True:
            if deadline is not None and time.monotonic() > deadline:
                raise _Late
            if not select.select([wire], [], [], SILENCE_S)[0]:
                # A device that takes a file is alive, however slow it is.
                if feeder.sent == fed:
                    self._check_alive()
                fed = feeder.sent
                continue
            piece = wire.recv(_PIECE_BYTES)
            rest += piece
            while len(rest) >= _HEADER.size:
                kind, length = _HEADER.unpack_from(rest)
                if len(rest) < _HEADER.size + length:
                    break
                if kind in kept:
                    kept[kind] += rest[_HEADER.size : _HEADER.size + length]
                elif kind == _EXIT:
                    piece = b""
                del rest[: _HEADER.size + length]
            if not piece:
                return bytes(kept[_STDOUT]), bytes(kept[_STDERR])

    def _check_alive(self) -> None:
        """Raises TimeoutError, EOFError or AdbError where the device cannot even run nothing."""
        with self._open("shell,v2,raw:exit 0") as connection:
            connection.read_exact(1)

    def _open(self, service: str) -> Connection:
        """A service of the device itself."""
        return self._running().open_device(self.params.serial, service, ANSWER_S)

    def _ask(self, service: str) -> str:
        with self._translated():
            return self._running().ask(service, _CONNECT_S)

    def _running(self) -> AdbServer:
        if self._server is None:
            raise self._lost("it is not open")
        return self._server

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """What breaks the connection becomes LinkLost."""
        try:
            yield
        except (adbutils.AdbError, OSError, EOFError) as error:
            raise self._lost(printable(str(error)) or "no answer") from error

    def _lost(self, why: str) -> LinkLost:
        return LinkLost(
            f"{self.name}: the link to {self.params.serial} is lost: {why}",
            "Check its cable or network and that it is awake, then run it again: what is done there is kept.",
        )


class _Late(Exception):
    """A command did not end in time."""


class _Feeder(threading.Thread):
    """Sends a stream and its end as packets; a command that ends before its input does says why by its exit code."""

    def __init__(self, wire: socket.socket, stream: BinaryIO) -> None:
        super().__init__(daemon=True)
        self._wire, self._stream = wire, stream
        self.sent = 0

    def run(self) -> None:
        """Until the stream ends or the connection does."""
        with contextlib.suppress(OSError):
            while piece := self._stream.read(_PIECE_BYTES):
                self._wire.sendall(_HEADER.pack(_STDIN, len(piece)) + piece)
                self.sent += len(piece)
            self._wire.sendall(_HEADER.pack(_CLOSE_STDIN, 0))

"""An adb server of our own: the user's (port 5037) is never talked to, started or ended."""

import importlib.resources
import os
import shutil
import socket
import subprocess
import time

import adbutils
from adbutils._adb import AdbConnection

from pocketbert.errors import DeviceError

_START_S = 20.0


class Connection(AdbConnection):
    """A connection to that one server; adbutils' own starts a server at 5037 where none answers."""

    def _safe_connect(self) -> socket.socket:
        connected: socket.socket = self._create_socket()
        return connected


class AdbServer:
    """A child process. It takes one USB device, or none for a device on the network, and leaves others alone."""

    def __init__(self, serial: str, *, usb: bool, port: int | None) -> None:
        self.port = port or _free_port()
        choice = ["--one-device", serial] if usb else []
        environment = os.environ | {"ADB_USB": "1" if usb else "0", "ADB_EMU": "0", "ADB_MDNS": "0"}
        # It ends with this process, however that ends.
        guard = [path, "--pdeathsig", "KILL"] if (path := shutil.which("setpriv")) else []
        self._process = subprocess.Popen(  # noqa: S603
            [*guard, adb_program(), "-L", f"tcp:localhost:{self.port}", *choice, "nodaemon", "server"],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise DeviceError(
                    f"adb's server did not start on port {self.port}", "Name a free port as `server_port`, or none."
                )
            time.sleep(0.1)

    def open(self, service: str, timeout_s: float) -> Connection:
        """Ask the server for a service; raises adbutils.AdbError or OSError."""
        connection = Connection("127.0.0.1", self.port)
        try:
            connection.conn.settimeout(timeout_s)
            connection.send_command(service)
            connection.check_okay()
        except BaseException:
            connection.close()
            raise
        return connection

    def ask(self, service: str, timeout_s: float) -> str:
        """The server's one answer to a question; raises adbutils.AdbError or OSError."""
        with self.open(service, timeout_s) as connection:
            answer: str = connection.read_string_block()
            return answer

    def open_device(self, serial: str, service: str, timeout_s: float) -> Connection:
        """Ask a device for a service; raises adbutils.AdbError or OSError."""
        connection = self.open(f"host:tport:serial:{serial}", timeout_s)
        try:
            # The transport's number, which only matters where it is asked for again.
            connection.read_exact(8)
            connection.send_command(service)
            connection.check_okay()
        except BaseException:
            connection.close()
            raise
        return connection

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _answers(self) -> bool:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) != 0:
                return False
        try:
            return bool(self.ask("host:version", 2.0))
        except (adbutils.AdbError, OSError):
            return False


def adb_program() -> str:
    """The adb that comes with adbutils, so that its version is known; raises AdbError where there is none at all."""
    bundled = importlib.resources.files("adbutils") / "binaries" / "adb"
    return str(bundled) if bundled.is_file() else adbutils.adb_path()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

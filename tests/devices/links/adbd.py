"""A real adbd (Debian's) of the test's own: a loopback port, and neither other interfaces nor vsock."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from pocketbert.devices.inventory import AdbParams
from pocketbert.devices.links.adb import AdbLink
from tests.devices.links.processes import descendants, free_port, listening, signal_all, wait_until
from tests.devices.links.sshd import SMALL_DISK

FOLDER = Path(os.environ.get("POCKETBERT_ADBD", Path.home() / ".cache/pocketbert/adbd"))
INSTALL = f"adbd is not there: tests/devices/links/fetch_adbd.sh {FOLDER} (and gcc must be installed)"
_HERE = Path(__file__).parent
# 127.0.0.1 as a socket for both families has it, in the kernel's notation.
LOOPBACK = "0000000000000000FFFF00000100007F"


def compile_guard(folder: Path) -> Path:
    """Build the library that keeps adbd to loopback."""
    library = folder / "loopback_only.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(_HERE / "loopback_only.c"), "-ldl"], check=True
    )
    return library


class Adbd:
    """adbd with the libraries of its own release; what it starts sees this machine's."""

    def __init__(self, folder: Path, *, small_disk: str | None = None) -> None:
        self.folder, self.port = folder, free_port()
        self.device = folder / "device"
        self.small = folder / "small"
        for made in (self.device, self.small):
            made.mkdir(exist_ok=True)
        # The loader takes blanks for separators.
        self.guard = compile_guard(Path(tempfile.mkdtemp(prefix="adbd-guard-")))
        self._small_disk = small_disk
        self._restarting = threading.Lock()
        self.start()

    def start(self) -> None:
        libraries = next((FOLDER / "root/usr/lib").glob("*-linux-gnu"))
        loader = next(libraries.glob("ld-linux*.so.*"))
        disk = [] if self._small_disk is None else [*SMALL_DISK, str(self.small), self._small_disk]
        with (self.folder / "adbd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *disk, str(loader), "--preload", str(self.guard),
                    "--library-path", f"{libraries}:{libraries / 'android'}",
                    str(FOLDER / "root/usr/lib/android-sdk/platform-tools/adbd"),
                ],
                env=os.environ | {"ADBD_PORT": str(self.port)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        # Not whether the port answers: a command that the one before was just starting may still hold it.
        wait_until(lambda: self.process.poll() is not None or bool(listening(self.process.pid)))
        found = listening(self.process.pid) if self.process.poll() is None else set()
        if found != {LOOPBACK}:
            self.process.kill()
            raise RuntimeError(f"adbd listens on {found or 'nothing'}, not on loopback alone")

    def stop(self) -> None:
        signal_all([*descendants(self.process.pid), self.process.pid], signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.guard.parent)

    def cut(self) -> None:
        """The device goes away and comes back, as after a pulled cable."""
        with self._restarting:
            self.process.kill()
            self.process.wait()
            self.start()

    def freeze(self) -> list[int]:
        signal_all([self.process.pid], signal.SIGSTOP)
        return [self.process.pid]

    @staticmethod
    def thaw(frozen: list[int]) -> None:
        signal_all(frozen, signal.SIGCONT)

    def params(self, **changes: Any) -> AdbParams:
        serial = f"127.0.0.1:{self.port}"
        entry = {"kind": "adb", "serial": serial, "work": str(self.device), "python": sys.executable}
        return AdbParams.model_validate(entry | changes)

    def link(self, **changes: Any) -> AdbLink:
        """A link as a user's devices.yaml would describe it, not connected yet."""
        return AdbLink("phone", self.params(**changes))

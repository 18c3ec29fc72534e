"""A real OpenSSH server of the test's own: a loopback port, generated keys, the test's user."""

import getpass
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from pocketbert.devices.inventory import SshParams
from pocketbert.devices.links.ssh import SshLink
from tests.devices.links.processes import await_port, descendants, free_port, signal_all

SSHD = shutil.which("sshd", path=f"/usr/sbin:/usr/local/sbin:{os.environ.get('PATH', '')}")
INSTALL = "openssh-server is not installed: apt-get install --no-install-recommends openssh-server"

SHADERS = Path(os.environ.get("MESA_SHADER_CACHE_DIR") or Path.home() / ".cache")

# The server in a mount namespace of its own, in which the folder $1 is a disk of $2.
SMALL_DISK = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o "size=$2" tmpfs "$1" && shift 2 && exec "$@"', "sh"]


def make_key(path: Path, kind: str = "ed25519") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
    return path


class Sshd:
    """`sshd -D`, the device's files under `device`."""

    def __init__(self, folder: Path, *, kinds: tuple[str, ...] = ("ed25519",), small_disk: str | None = None) -> None:
        self.folder, self.port = folder, free_port()
        self.device = folder / "device"
        self.small = folder / "small"
        self.user_key = make_key(folder / "user")
        for made in (self.device, self.small):
            made.mkdir()
        shutil.copy(folder / "user.pub", folder / "authorized_keys")
        self.host_keys = {kind: make_key(folder / f"host_{kind}", kind) for kind in kinds}
        self._small_disk = small_disk
        self.start()

    def start(self) -> None:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        lines = [
            f"Port {self.port}", "ListenAddress 127.0.0.1", "UsePAM no", "StrictModes no", "PasswordAuthentication no",
            "PidFile none", "MaxStartups 100", "Subsystem sftp internal-sftp",
            f'AuthorizedKeysFile "{str(self.folder).replace("%", "%%")}/authorized_keys"',
            # Without the profile of whoever runs the tests, but with what Mesa's driver compiled before: half a minute.
            f'SetEnv "HOME={self.device}" "MESA_SHADER_CACHE_DIR={SHADERS}"',
            *(f'HostKey "{key}"' for key in self.host_keys.values()),
        ]  # fmt: skip
        config = self.folder / "sshd_config"
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        disk = [] if self._small_disk is None else [*SMALL_DISK, str(self.small), self._small_disk]
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen([*disk, str(SSHD), "-D", "-e", "-f", str(config)], stderr=log)
        await_port(self.port, lambda: self.process.poll() is None)

    def stop(self) -> None:
        signal_all([*descendants(self.process.pid), self.process.pid], signal.SIGKILL)
        self.process.wait()

    def connections(self) -> list[int]:
        """The server's process of each connection."""
        return [
            pid
            for pid in descendants(self.process.pid)
            if b"sshd" in (Path(f"/proc/{pid}/cmdline").read_bytes() if Path(f"/proc/{pid}").exists() else b"")
        ]

    def cut(self) -> None:
        """End all connections at once; what they started is left to itself."""
        signal_all(self.connections(), signal.SIGKILL)

    def freeze(self) -> list[int]:
        """Stop answering, the server itself too; returns what `thaw` takes."""
        frozen = [self.process.pid, *self.connections()]
        signal_all(frozen, signal.SIGSTOP)
        return frozen

    @staticmethod
    def thaw(frozen: list[int]) -> None:
        signal_all(frozen, signal.SIGCONT)

    def host_key(self, kind: str = "ed25519") -> str:
        return self.host_keys[kind].with_suffix(".pub").read_text(encoding="utf-8").strip()

    def params(self, **changes: Any) -> SshParams:
        entry = {
            "kind": "ssh", "address": "127.0.0.1", "port": self.port, "user": getpass.getuser(),
            "key": str(self.user_key), "host_key": self.host_key(), "work": str(self.device),
        }  # fmt: skip
        return SshParams.model_validate(entry | changes)

    def link(self, **changes: Any) -> SshLink:
        """A link as a user's devices.yaml would describe it, not connected yet."""
        return SshLink("board", self.params(**changes))

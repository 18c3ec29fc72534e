"""An aarch64 board under emulation: a Debian of its own in a chroot, behind its own sshd.

Its times mean nothing. That wheels for another processor are found, pushed and installed, and that the logits are
right, does.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.devices.links.processes import await_port, descendants, free_port, signal_all
from tests.devices.links.sshd import make_key

_HERE = Path(__file__).parent
# Without /sys the runtime's results were silently zero under emulation.
_BOOT = """
set -e
root=$1
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mkdir -p "$root/run/sshd"
shift
chroot "$root" /usr/sbin/sshd -D -e "$@"
"""


class Arm64Board:
    """What build_arm64.sh made, running; `folder` keeps the keys."""

    def __init__(self, built: Path, folder: Path) -> None:
        self.root, self.port, self.user_key = built / "root", free_port(), make_key(folder / "user")
        ssh = self.root / "root/.ssh"
        ssh.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(folder / "user.pub", ssh / "authorized_keys")
        shutil.rmtree(self.root / "root/work", ignore_errors=True)
        options = [f"Port={self.port}", "ListenAddress=127.0.0.1", "UsePAM=no", "StrictModes=no", "PidFile=none"]
        argv = [str(_HERE / "with_arm64.sh"), "sh", "-c", _BOOT, "sh", str(self.root)]
        with (folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*argv, *(part for option in options for part in ("-o", option))], stderr=log,
                env={name: value for name, value in os.environ.items() if name != "POCKETBERT_MOUNTS"},
            )  # fmt: skip
        await_port(self.port, lambda: self.process.poll() is None, seconds=60)

    def stop(self) -> None:
        """End everything in the chroot; the script then takes the registration back."""
        signal_all(descendants(self.process.pid), signal.SIGKILL)
        self.process.wait(30)

    def entry(self) -> str:
        """Its line of devices.yaml."""
        host_key = (self.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text(encoding="utf-8").strip()
        return (
            f"{{kind: ssh, address: 127.0.0.1, port: {self.port}, user: root, key: {self.user_key}, "
            f"host_key: {host_key}, work: /root/work}}"
        )

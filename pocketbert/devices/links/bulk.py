"""Large files over SSH by the system's own client, several times as fast as a client in Python.

The file is the client's standard input and a command on the device appends it: as fast as scp, which takes the
same way, and unlike scp it can go on in the middle of a file. rsync could too, if it were on every board.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from pocketbert.devices.inventory import SshParams
from pocketbert.devices.links.base import Finished
from pocketbert.devices.links.host_key import signatures

BULK_BYTES = 8 << 20
# ssh's own exit code; its stderr says why.
CONNECTION_FAILED = 255
_POLL_S = 0.5
_ALIAS = "device"


def find_client() -> str | None:
    """Path of the system's ssh, or None."""
    return shutil.which("ssh")


def send_bulk(
    client: str, params: SshParams, host_key: str, command: str, stream: BinaryIO, *, alive: Callable[[], bool]
) -> Finished | None:
    """Run `command` on the device with the rest of `stream` as its input; None where the device went silent.

    `host_key` (`KIND BASE64`) is the key that was verified already: any other is refused. `alive` tells whether the
    controlling connection is; a silent device is found by either.
    """
    with tempfile.TemporaryDirectory(prefix="pocketbert-ssh-") as folder:
        known = Path(folder) / "known_hosts"
        known.write_text(f"{_ALIAS} {host_key.strip()}\n", encoding="ascii")
        options: Mapping[str, str] = {
            "IdentityFile": _literal(params.key.expanduser()), "IdentitiesOnly": "yes", "BatchMode": "yes",
            "IdentityAgent": "none", "ControlPath": "none",
            "StrictHostKeyChecking": "yes", "UserKnownHostsFile": _literal(known), "GlobalKnownHostsFile": "none",
            "HostKeyAlias": _ALIAS, "HostKeyAlgorithms": ",".join(signatures(host_key.split()[:1])),
            "ConnectTimeout": "15", "ServerAliveInterval": "1", "ServerAliveCountMax": "2", "LogLevel": "ERROR",
        }  # fmt: skip
        settings = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        argv = [
            client, "-F", "none", "-T", *settings, "-p", str(params.port), "-l", params.user,
            "--", params.address, command,
        ]  # fmt: skip
        with subprocess.Popen(  # noqa: S603
            argv, stdin=stream, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                return _follow(process, alive)
            finally:
                process.kill()


def _follow(process: "subprocess.Popen[bytes]", alive: Callable[[], bool]) -> Finished | None:
    while alive():
        try:
            stdout, stderr = process.communicate(timeout=_POLL_S)
        except subprocess.TimeoutExpired:
            continue
        return Finished(process.returncode, stdout, stderr)
    return None


def _literal(path: Path) -> str:
    """A path as a value of ssh's configuration, which knows quotes and replaces `%h` and the like."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'

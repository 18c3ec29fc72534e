"""Servers of its own for what is measured of links: a real sshd, a real adbd (tests/devices/links)."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.devices.links.adbd import Adbd
from tests.devices.links.sshd import Sshd

Server = Sshd | Adbd


@contextmanager
def started(kind: str, small_disk: str | None = None) -> Iterator[Server]:
    """A server of its own in a scratch folder."""
    folder = Path(tempfile.mkdtemp(prefix="pocketbert-links-"))
    server: Server = (Sshd if kind == "ssh" else Adbd)(folder, small_disk=small_disk)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)

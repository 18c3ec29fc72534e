"""Real servers, one of each for a worker."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pocketbert.devices.links.adb import AdbLink
from pocketbert.devices.links.ssh import SshLink
from tests.devices.links.adbd import FOLDER, Adbd
from tests.devices.links.adbd import INSTALL as INSTALL_ADBD
from tests.devices.links.sshd import INSTALL, SSHD, Sshd

Server = Sshd | Adbd
RemoteLink = SshLink | AdbLink
KINDS = ["ssh", "adb"]


def missing(reason: str) -> None:
    """Fail in CI, skip elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if SSHD is None:
        missing(INSTALL)
    # A folder whose name needs quoting wherever it is used.
    server = Sshd(tmp_path_factory.mktemp("ssh 'd"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def small_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server whose folder `small` is a disk of 24 MB."""
    if SSHD is None:
        missing(INSTALL)
    try:
        server = Sshd(tmp_path_factory.mktemp("small"), small_disk="24m")
    except RuntimeError:
        missing("a small disk needs the right to mount (root)")
        raise
    yield server
    server.stop()


@pytest.fixture(scope="session")
def adbd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adbd]:
    _need_adbd()
    server = Adbd(tmp_path_factory.mktemp("adb 'd"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def small_adbd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adbd]:
    """An adbd whose folder `small` is a disk of 24 MB."""
    _need_adbd()
    try:
        server = Adbd(tmp_path_factory.mktemp("small"), small_disk="24m")
    except RuntimeError:
        missing("a small disk needs the right to mount (root)")
        raise
    yield server
    server.stop()


def _need_adbd() -> None:
    if not (FOLDER / "complete").exists() or shutil.which("gcc") is None:
        missing(INSTALL_ADBD)


@pytest.fixture(params=KINDS, scope="module")
def server(request: pytest.FixtureRequest) -> Server:
    fixture: Server = request.getfixturevalue(f"{request.param}d")
    return fixture


@pytest.fixture(params=KINDS, scope="module")
def small(request: pytest.FixtureRequest) -> Server:
    fixture: Server = request.getfixturevalue(f"small_{request.param}d")
    return fixture


@pytest.fixture
def link(server: Server) -> Iterator[RemoteLink]:
    with_connection = server.link()
    with_connection.connect()
    yield with_connection
    with_connection.close()


@pytest.fixture
def place(server: Server, request: pytest.FixtureRequest) -> Path:
    """A folder of the device, new for each test and not made yet."""
    return server.device / f"{request.node.name} {os.urandom(4).hex()}"

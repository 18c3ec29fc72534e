"""What only ADB has: a server of our own, and exit codes that need a witness."""

import os
import socket
import threading
from pathlib import Path

import pytest

from pocketbert.devices.links.adb import AdbLink
from pocketbert.devices.links.base import LinkLost
from pocketbert.errors import DeviceError
from tests.devices.links.adbd import LOOPBACK, Adbd
from tests.devices.links.processes import descendants, free_port, listening, wait_until


def test_the_device_under_test_listens_on_loopback_only(adbd: Adbd) -> None:
    assert listening(adbd.process.pid) == {LOOPBACK}
    log = (adbd.folder / "adbd.log").read_text(encoding="utf-8", errors="replace")
    assert "adbd started" in log
    if hasattr(socket, "AF_VSOCK") and Path("/dev/vsock").exists():
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as probe:
            probe.settimeout(0.5)
            with pytest.raises(OSError):
                # This machine's own address there (VMADDR_CID_LOCAL).
                probe.connect((1, adbd.port))


def test_our_server_is_ours_and_ends_with_the_link(adbd: Adbd) -> None:
    with socket.socket() as probe:
        users_server = probe.connect_ex(("127.0.0.1", 5037)) == 0
    before = set(descendants(os.getpid()))
    link = adbd.link(server_port=(port := free_port()))
    link.connect()
    started = set(descendants(os.getpid())) - before
    assert any(listening(pid) == {"0100007F"} for pid in started)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) == 0
    link.close()
    link.close()
    assert not {pid for pid in started if Path(f"/proc/{pid}").exists()}
    with socket.socket() as probe:
        assert (probe.connect_ex(("127.0.0.1", 5037)) == 0) == users_server


def test_a_port_that_is_taken(adbd: Adbd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(DeviceError, match="server did not start"):
        adbd.link(server_port=taken.getsockname()[1]).connect()


def test_a_dead_server_is_a_lost_link_and_not_replaced_by_the_users(adbd: Adbd) -> None:
    link = adbd.link()
    link.connect()
    assert link._server is not None
    link._server._process.kill()
    link._server._process.wait()
    with pytest.raises(LinkLost):
        link.run(["true"], timeout_s=20)
    link.connect()
    assert link.run(["true"], timeout_s=20).returncode == 0
    link.close()


def test_a_command_that_broke_in_the_middle_has_no_exit_code(adbd: Adbd) -> None:
    link = adbd.link()
    link.connect()
    caught: list[BaseException] = []

    def work() -> None:
        try:
            link.run(["sh", "-c", "echo begun; sleep 30"], timeout_s=60)
        except LinkLost as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert wait_until(lambda: len(descendants(adbd.process.pid)) > 0)
    adbd.cut()
    thread.join(20)
    assert not thread.is_alive()
    assert len(caught) == 1
    link.connect()
    assert link.run(["true"], timeout_s=20).returncode == 0
    link.close()


def test_a_command_that_prints_like_a_marker(adbd: Adbd) -> None:
    link = adbd.link()
    link.connect()
    done = link.run(["sh", "-c", "printf 'x %d' 0; exit 5"], timeout_s=20)
    assert (done.returncode, done.stdout) == (5, b"x 0")
    with pytest.raises(DeviceError, match="too long"):
        link.run(["echo", "x" * 70_000], timeout_s=20)
    link.close()


def test_a_serial_that_is_not_there() -> None:
    from pocketbert.devices.inventory import AdbParams

    link = AdbLink("phone", AdbParams(kind="adb", serial="NOSUCHPHONE", python="python3"))
    with pytest.raises(LinkLost, match="NOSUCHPHONE"):
        link.connect()

"""Files on their way by every link: sent once, resumed, verified, and nothing left of what failed."""

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pocketbert.devices.links.base import LinkLost
from pocketbert.errors import DeviceError
from tests.devices.links.conftest import RemoteLink, Server
from tests.devices.links.processes import slow_wire, wait_until
from tests.devices.links.sshd import Sshd


def make_file(folder: Path, size: int) -> Path:
    file = folder / f"file {size}"
    file.write_bytes(os.urandom(size))
    return file


def half_sent(file: Path, place: Path, content: bytes) -> Path:
    """What an earlier transfer of `file` to `place` left."""
    part = place / f".{hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()}.part"
    place.mkdir(parents=True, exist_ok=True)
    part.write_bytes(content)
    return part


def sent_sizes(link: RemoteLink, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what goes over the wire from now on."""
    sizes: list[int] = []
    send = link.send

    def spy(argv: Any, stream: Any, size: int) -> Any:
        sizes.append(size)
        return send(argv, stream, size)

    monkeypatch.setattr(link, "send", spy)
    return sizes


@pytest.mark.parametrize("size", [0, 1, 9 << 20])
def test_a_file_is_sent_once(
    link: RemoteLink, place: Path, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_file(tmp_path, size)
    file.chmod(0o750)
    sizes = sent_sizes(link, monkeypatch)
    link.push(file, str(place / "target"))
    assert (place / "target").read_bytes() == file.read_bytes()
    assert (place / "target").stat().st_mode & 0o777 == 0o750
    link.push(file, str(place / "target"))
    assert sizes == [size]
    # Other content under the same name.
    file.write_bytes(b"new")
    link.push(file, str(place / "target"))
    assert (place / "target").read_bytes() == b"new"
    assert [path.name for path in place.iterdir()] == ["target"]


@pytest.mark.parametrize("size", [1000, 9 << 20])
def test_what_was_half_sent_is_resumed(
    link: RemoteLink, place: Path, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_file(tmp_path, size)
    half_sent(file, place, file.read_bytes()[: size // 4])
    sizes = sent_sizes(link, monkeypatch)
    link.push(file, str(place / "target"))
    assert (place / "target").read_bytes() == file.read_bytes()
    assert sizes == [size - size // 4]


@pytest.mark.parametrize("left", [b"other", b"x" * 2000], ids=["other", "longer"])
def test_a_wrong_beginning_is_sent_again(
    link: RemoteLink, place: Path, tmp_path: Path, left: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_file(tmp_path, 1000)
    half_sent(file, place, left)
    sizes = sent_sizes(link, monkeypatch)
    link.push(file, str(place / "target"))
    assert (place / "target").read_bytes() == file.read_bytes()
    assert sizes == [1000]
    assert [path.name for path in place.iterdir()] == ["target"]


def test_whole_but_not_yet_in_place(
    link: RemoteLink, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_file(tmp_path, 1000)
    half_sent(file, place, file.read_bytes())
    sizes = sent_sizes(link, monkeypatch)
    link.push(file, str(place / "target"))
    assert (place / "target").read_bytes() == file.read_bytes()
    assert sizes == []


def test_places_that_cannot_be_written(link: RemoteLink, place: Path, tmp_path: Path) -> None:
    file = make_file(tmp_path, 10)
    (place / "folder").mkdir(parents=True)
    (place / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(DeviceError, match="is a folder"):
        link.push(file, str(place / "folder"))
    with pytest.raises(DeviceError, match="cannot be written"):
        link.push(file, str(place / "file" / "below"))
    assert (place / "file").read_text(encoding="utf-8") == "in the way"


@pytest.mark.parametrize("how", ["cut", "freeze"])
def test_a_push_that_breaks_goes_on(server: Server, place: Path, tmp_path: Path, how: str) -> None:
    file = make_file(tmp_path, 24 << 20)
    part = half_sent(file, place, b"")
    frozen: list[int] = []
    broken_at: list[float] = []

    def disturb() -> None:
        wait_until(lambda: part.exists() and part.stat().st_size > 4 << 20)
        broken_at.append(time.monotonic())
        if how == "cut":
            server.cut()
        else:
            frozen.extend(server.freeze())

    with slow_wire(server.port, rate=16e6) as port:
        link = server.link(**({"port": port} if isinstance(server, Sshd) else {"serial": f"127.0.0.1:{port}"}))
        link.connect()
        thread = threading.Thread(target=disturb)
        thread.start()
        with pytest.raises(LinkLost):
            link.push(file, str(place / "target"))
        thread.join()
        assert time.monotonic() - broken_at[0] < 10
        link.close()
    assert not (place / "target").exists()
    link = server.link()
    server.thaw(frozen)
    link.connect()
    began_with = part.stat().st_size
    link.push(file, str(place / "target"))
    link.close()
    # The receiver of the broken connection may still have something to write.
    time.sleep(0.5)
    assert began_with > 4 << 20
    assert (place / "target").read_bytes() == file.read_bytes()
    assert [path.name for path in place.iterdir()] == ["target"]


def test_a_late_receiver_cannot_spoil_the_file(link: RemoteLink, place: Path, tmp_path: Path) -> None:
    """A receiver that a frozen connection left has the half-sent file open, and writes when it thaws."""
    file = make_file(tmp_path, 1000)
    part = half_sent(file, place, file.read_bytes()[:100])
    with part.open("ab") as late:
        link.push(file, str(place / "target"))
        late.write(b"too late")
    assert (place / "target").read_bytes() == file.read_bytes()


def test_a_full_disk_is_named_and_left_clean(small: Server, tmp_path: Path) -> None:
    # A folder of its own: other tests share the disk.
    place = small.small / "pushed"
    link = small.link()
    link.connect()
    for size in (40 << 20, 30 << 20):
        with pytest.raises(DeviceError, match=r"no space left for file \d+ \(\d+\.\d MB\)"):
            link.push(make_file(tmp_path, size), str(place / "target"))
    assert link.run(["ls", "-A", str(place)], timeout_s=20).stdout == b""
    file = make_file(tmp_path, 1 << 20)
    link.push(file, str(place / "target"))
    assert link.read(str(place / "target"), 0, 2 << 20) == file.read_bytes()
    link.close()


def test_a_slow_link_is_no_lost_link(server: Server, place: Path, tmp_path: Path) -> None:
    file = make_file(tmp_path, 1 << 20)
    with slow_wire(server.port, rate=250e3, delay_s=0.01) as port:
        link = server.link(**({"port": port} if isinstance(server, Sshd) else {"serial": f"127.0.0.1:{port}"}))
        link.connect()
        link.push(file, str(place / "target"))
        link.close()
    assert (place / "target").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("path", ["relative", "-rf", "", "/folder/"])
def test_only_absolute_paths(link: RemoteLink, tmp_path: Path, path: str) -> None:
    with pytest.raises(DeviceError, match="absolute"):
        link.push(make_file(tmp_path, 1), path)
    with pytest.raises(DeviceError, match="absolute"):
        link.read(path, 0, 1)

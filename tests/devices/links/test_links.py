"""The same promises by every link that goes to another machine, against a real sshd and a real adbd."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketbert.devices.links.adb import AdbLink
from pocketbert.devices.links.base import LinkLost
from pocketbert.devices.links.ssh import SshLink
from pocketbert.errors import DeviceError
from tests.devices.links.adbd import Adbd
from tests.devices.links.processes import free_port, slow_wire, wait_until
from tests.devices.links.sshd import Sshd

Server = Sshd | Adbd
RemoteLink = SshLink | AdbLink
KINDS = ["ssh", "adb"]
EXAMPLES = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
# Whatever a shell may stumble over, and any other text that a file system takes.
NASTY = st.sampled_from(
    ["-rf", "--", "$(touch pwned)", "`id`", "a;b", "a\nb", "'", '"', "\\", "*", "~", "&&", "|", " "]
)
TEXT = st.one_of(NASTY, st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20))
NAMES = (
    st.lists(TEXT, min_size=1, max_size=3)
    .map(lambda parts: "".join(parts).replace("/", "_"))
    .filter(lambda name: name not in ("", ".", "..") and len(name.encode()) < 200)
)


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


@EXAMPLES
@given(st.lists(TEXT, min_size=1, max_size=5))
def test_hands_arguments_on_as_they_are(link: RemoteLink, arguments: list[str]) -> None:
    done = link.run(["printf", "%s\\0", *arguments], timeout_s=20)
    assert done.stdout.decode() == "".join(f"{argument}\0" for argument in arguments)
    assert done.returncode == 0


@EXAMPLES
@given(NAMES, NAMES)
def test_any_name_is_safe(link: RemoteLink, place: Path, tmp_path: Path, folder: str, name: str) -> None:
    (tmp_path / "file").write_text(f"{folder!r} {name!r}", encoding="utf-8")
    target = place / folder / name
    link.push(tmp_path / "file", str(target))
    assert target.read_bytes() == (tmp_path / "file").read_bytes()
    assert link.read(str(target), 1, 4) == target.read_bytes()[1:5]
    link.pull(str(target), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == target.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == [name]
    target.unlink()
    assert not list(Path().glob("pwned"))


def test_a_command_has_its_exit_code_its_output_and_its_end(link: RemoteLink) -> None:
    done = link.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout_s=20)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert link.run(["no-such-program"], timeout_s=20).returncode == 127
    assert link.run(["sh", "-c", "kill -9 $$"], timeout_s=20).returncode in (-9, 128 + 9)
    assert link.run(["cat"], timeout_s=20).stdout == b""
    # Larger than all buffers in between, both ways at once.
    data = os.urandom(3 << 20)
    assert link.run(["cat"], timeout_s=60, input=data).stdout == data
    # A command that ends before its input does: what it said is not lost.
    early = "head -c 1000000 >/dev/null; echo out; echo err >&2; exit 3"
    for _ in range(10):
        done = link.run(["sh", "-c", early], timeout_s=60, input=data)
        assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


def test_a_command_that_does_not_end_is_no_lost_link(link: RemoteLink) -> None:
    with pytest.raises(DeviceError, match="did not end within 1 s") as caught:
        link.run(["sleep", "60"], timeout_s=1)
    assert not isinstance(caught.value, LinkLost)
    assert link.run(["true"], timeout_s=20).returncode == 0


def test_a_quiet_command_is_waited_for(link: RemoteLink) -> None:
    assert link.run(["sh", "-c", "sleep 2.5; echo done"], timeout_s=30).stdout == b"done\n"


@pytest.mark.parametrize("argv", [[], ["-c", "x"], ["printf", "\ud800"], ["printf", "a\0b"]])
def test_what_no_shell_can_pass_on_is_refused(link: RemoteLink, argv: list[str]) -> None:
    with pytest.raises(DeviceError):
        link.run(argv, timeout_s=20)


@pytest.mark.parametrize("path", ["relative", "-rf", "", "/folder/"])
def test_only_absolute_paths(link: RemoteLink, tmp_path: Path, path: str) -> None:
    with pytest.raises(DeviceError, match="absolute"):
        link.push(make_file(tmp_path, 1), path)
    with pytest.raises(DeviceError, match="absolute"):
        link.read(path, 0, 1)


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


def test_what_was_started_outlives_the_link_and_is_read_on(server: Server, place: Path) -> None:
    link = server.link()
    link.connect()
    count = 'printf "%s\\n" "$WORD"; for i in $(seq 40); do echo "line $i"; sleep 0.1; done'
    for _ in range(2):
        # Asked twice where the answer was lost on the way: it still starts once.
        link.start(["sh", "-c", count], environment={"WORD": "a  '$(id)'\n;"}, folder=str(place))
    read = b""
    cuts = 0
    deadline = time.monotonic() + 60
    while b"line 40\n" not in read and time.monotonic() < deadline:
        try:
            read += link.read(str(place / "stdout"), len(read), 50)
            if cuts < 3 and len(read) > 80 * (cuts + 1):
                server.cut()
                cuts += 1
        except LinkLost:
            link.connect()
    link.close()
    assert cuts == 3
    assert read.decode() == "a  '$(id)'\n;\n" + "".join(f"line {i}\n" for i in range(1, 41))


def test_what_cannot_be_started_is_told(link: RemoteLink, place: Path) -> None:
    with pytest.raises(DeviceError, match="no-such-program"):
        link.start(["no-such-program"], environment={}, folder=str(place))
    with pytest.raises(DeviceError, match="variable"):
        link.start(["true"], environment={"A=B; C": ""}, folder=str(place))


def test_reading(link: RemoteLink, place: Path, tmp_path: Path) -> None:
    place.mkdir()
    (place / "spool").write_bytes(bytes(range(256)) * 40)
    assert link.read(str(place / "spool"), 250, 10) == bytes([250, 251, 252, 253, 254, 255, 0, 1, 2, 3])
    assert link.read(str(place / "spool"), 256 * 40, 10) == b""
    assert link.read(str(place / "none yet"), 0, 10) == b""
    with pytest.raises(DeviceError, match="cannot be read"):
        link.pull(str(place / "none"), tmp_path / "back")
    assert list(tmp_path.iterdir()) == []


def test_a_slow_link_is_no_lost_link(server: Server, place: Path, tmp_path: Path) -> None:
    file = make_file(tmp_path, 1 << 20)
    with slow_wire(server.port, rate=250e3, delay_s=0.01) as port:
        link = server.link(**({"port": port} if isinstance(server, Sshd) else {"serial": f"127.0.0.1:{port}"}))
        link.connect()
        link.push(file, str(place / "target"))
        link.close()
    assert (place / "target").read_bytes() == file.read_bytes()


def test_a_frozen_device_is_found(server: Server) -> None:
    link = server.link()
    link.connect()
    frozen = server.freeze()
    began = time.monotonic()
    try:
        with pytest.raises(LinkLost):
            link.run(["true"], timeout_s=60)
        assert time.monotonic() - began < 15
    finally:
        server.thaw(frozen)
    link.connect()
    assert link.run(["true"], timeout_s=20).returncode == 0
    link.close()


def test_nobody_there(server: Server) -> None:
    port = free_port()
    link = server.link(**({"port": port} if isinstance(server, Sshd) else {"serial": f"127.0.0.1:{port}"}))
    with pytest.raises(LinkLost):
        link.connect()
    with pytest.raises(LinkLost):
        link.run(["true"], timeout_s=20)
    link.close()

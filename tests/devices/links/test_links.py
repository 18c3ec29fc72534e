"""The same promises by every link that goes to another machine, against a real sshd and a real adbd."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketbert.devices.links.base import LinkLost
from pocketbert.errors import DeviceError
from tests.devices.links.conftest import RemoteLink, Server
from tests.devices.links.processes import free_port
from tests.devices.links.sshd import Sshd

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

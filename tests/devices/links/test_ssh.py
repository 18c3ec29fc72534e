"""What only SSH has: host keys, user keys, login shells, two ways to send a file."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pocketbert.devices.links.base import LinkLost
from pocketbert.errors import DeviceError, ParamsError
from tests.devices.links.conftest import missing
from tests.devices.links.sshd import INSTALL, SSHD, Sshd, make_key


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server with keys of three kinds, as most have."""
    if SSHD is None:
        missing(INSTALL)
    server = Sshd(tmp_path_factory.mktemp("board %h"), kinds=("ed25519", "ecdsa", "rsa"))
    yield server
    server.stop()


def fingerprint(public_key: str) -> str:
    done = subprocess.run(["ssh-keygen", "-lf", "-"], input=public_key, check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_pinned_key_opens_the_link(board: Sshd, kind: str, tmp_path: Path) -> None:
    line = f"[127.0.0.1]:{board.port} {board.host_key(kind)}"
    large = tmp_path / "large"
    large.write_bytes(os.urandom(9 << 20))
    for pin in (line, board.host_key(kind), fingerprint(board.host_key(kind))):
        link = board.link(host_key=pin)
        link.connect()
        assert link.run(["echo", "here"], timeout_s=20).stdout == b"here\n"
        link.push(large, str(board.device / "large"))
        (board.device / "large").unlink()
        link.close()


def test_an_unknown_host_key_is_refused(board: Sshd, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text(encoding="utf-8").strip()
    for pin in (other, fingerprint(other)):
        with pytest.raises(DeviceError) as caught:
            board.link(host_key=pin).connect()
        # Trying again will not help.
        assert not isinstance(caught.value, LinkLost)
        assert fingerprint(board.host_key()) in caught.value.cause
        assert fingerprint(other) in caught.value.cause
        assert caught.value.exit_code == 9


def test_a_server_without_a_key_of_the_pinned_kind_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other", "ecdsa").with_suffix(".pub").read_text(encoding="utf-8").strip()
    with pytest.raises(DeviceError, match="pins SHA256") as caught:
        sshd.link(host_key=other).connect()
    assert not isinstance(caught.value, LinkLost)


def test_a_changed_host_key_is_refused_in_the_middle(tmp_path: Path) -> None:
    if SSHD is None:
        missing(INSTALL)
    server = Sshd(tmp_path)
    try:
        link = server.link()
        link.connect()
        server.stop()
        for part in (tmp_path / "host_ed25519", tmp_path / "host_ed25519.pub"):
            part.unlink()
        make_key(tmp_path / "host_ed25519")
        server.start()
        with pytest.raises(LinkLost):
            link.run(["true"], timeout_s=20)
        with pytest.raises(DeviceError, match="pins SHA256") as caught:
            link.connect()
        assert not isinstance(caught.value, LinkLost)
    finally:
        server.stop()


def test_a_key_of_another_kind_is_a_changed_key(sshd: Sshd, board: Sshd) -> None:
    """A server that has no key of the pinned kind at all."""
    with pytest.raises(DeviceError, match="pins SHA256") as caught:
        sshd.link(host_key=board.host_key("rsa")).connect()
    assert not isinstance(caught.value, LinkLost)
    assert fingerprint(sshd.host_key()) in caught.value.cause


def test_a_wrong_user_key_is_refused(board: Sshd, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger")
    with pytest.raises(DeviceError, match=r"refuses .*stranger") as caught:
        board.link(key=str(stranger)).connect()
    assert not isinstance(caught.value, LinkLost)


def test_a_key_file_must_be_there_private_and_a_key(board: Sshd, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copy(board.user_key, copy)
    copy.chmod(0o640)
    with pytest.raises(ParamsError, match="chmod 600"):
        board.link(key=str(copy)).connect()
    with pytest.raises(ParamsError, match="cannot be read"):
        board.link(key=str(tmp_path / "none")).connect()
    copy.write_text("no key", encoding="utf-8")
    copy.chmod(0o600)
    with pytest.raises(ParamsError, match="no private key"):
        board.link(key=str(copy)).connect()


def test_a_passphrase_comes_from_the_environment(board: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "locked"
    shutil.copy(board.user_key, locked)
    locked.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "s3cret words", "-f", str(locked)], check=True)
    link = board.link(key=str(locked), passphrase_variable="BOARD_PASSPHRASE")  # noqa: S106
    for value in (None, "wrong"):
        if value:
            monkeypatch.setenv("BOARD_PASSPHRASE", value)
        with pytest.raises(ParamsError, match="passphrase_variable") as caught:
            link.connect()
        assert "s3cret" not in str(caught.value)
    monkeypatch.setenv("BOARD_PASSPHRASE", "s3cret words")
    link.connect()
    # The system's client cannot be told a passphrase: large files go the other way.
    large = tmp_path / "large"
    large.write_bytes(os.urandom(9 << 20))
    link.push(large, str(board.device / "locked"))
    assert (board.device / "locked").read_bytes() == large.read_bytes()
    link.close()


def test_large_files_without_the_systems_client(board: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = board.link()
    link.connect()
    monkeypatch.setenv("PATH", str(tmp_path))
    large = tmp_path / "large"
    large.write_bytes(os.urandom(9 << 20))
    link.push(large, str(board.device / "large"))
    assert (board.device / "large").read_bytes() == large.read_bytes()
    (board.device / "large").unlink()
    link.close()


def test_a_failure_of_the_systems_client_is_told(board: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tmp_path / "ssh"
    client.write_text("#!/bin/sh\necho 'Bad configuration option' >&2\nexit 255\n", encoding="utf-8")
    client.chmod(0o755)
    large = tmp_path / "large"
    large.write_bytes(os.urandom(9 << 20))
    link = board.link()
    link.connect()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(LinkLost, match="Bad configuration option"):
        link.push(large, str(board.device / "large"))
    link.close()


@pytest.mark.parametrize(
    "shell",
    ['echo welcome; eval "$SSH_ORIGINAL_COMMAND"', 'echo "$SSH_ORIGINAL_COMMAND"'],
    ids=["chatty", "not POSIX"],
)
def test_a_login_shell_that_spoils_answers_is_told(board: Sshd, tmp_path: Path, shell: str) -> None:
    key = make_key(tmp_path / "chatty")
    public = key.with_suffix(".pub").read_text(encoding="utf-8")
    quoted = shell.replace('"', '\\"')
    with (board.folder / "authorized_keys").open("a", encoding="utf-8") as keys:
        keys.write(f'command="{quoted}" {public}')
    with pytest.raises(DeviceError, match="login shell"):
        board.link(key=str(key)).connect()


def test_the_users_own_configuration_is_not_asked(board: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ssh").mkdir(mode=0o700)
    (tmp_path / ".ssh/config").write_text(f"Host *\n  ProxyCommand touch {tmp_path}/asked\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    large = tmp_path / "large"
    large.write_bytes(os.urandom(9 << 20))
    link = board.link()
    link.connect()
    link.push(large, str(board.device / "large"))
    link.close()
    assert not (tmp_path / "asked").exists()


def test_closing_twice_and_using_it_closed(board: Sshd) -> None:
    link = board.link()
    link.close()
    link.connect()
    link.connect()
    link.close()
    link.close()
    with pytest.raises(LinkLost):
        link.run(["true"], timeout_s=20)

"""Pinned host keys in all the forms that people have them in, against ssh-keygen's own fingerprints."""

import subprocess
from pathlib import Path

import pytest

from pocketbert.devices.links.host_key import parse_host_key, signatures
from pocketbert.errors import ParamsError

KINDS = {"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp256", "rsa": "ssh-rsa"}


@pytest.fixture(scope="module", params=KINDS)
def key(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """A public key's kind, its base64 and its fingerprint by ssh-keygen."""
    path = tmp_path_factory.mktemp("keys") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", request.param, "-N", "", "-C", "a note", "-f", str(path)], check=True)
    public = path.with_suffix(".pub")
    told = subprocess.run(["ssh-keygen", "-lf", str(public)], check=True, capture_output=True, text=True).stdout
    return KINDS[request.param], public.read_text(encoding="utf-8").split()[1], told.split()[1]


def test_every_form_is_the_same_pin(key: tuple[str, str, str]) -> None:
    kind, blob, fingerprint = key
    for text in (
        f"{kind} {blob}",
        f"{kind} {blob} root@board",
        f"[192.0.2.1]:2222,board.example {kind} {blob}",
        f"|1|c2FsdA==|aGFzaA== {kind} {blob} a note of {kind} kind\n",
    ):
        pinned = parse_host_key(text)
        assert (pinned.fingerprint, pinned.kind) == (fingerprint, kind)
        assert pinned.kinds()[0] == kind
    assert parse_host_key(fingerprint).fingerprint == fingerprint
    assert parse_host_key(f"{fingerprint}=").fingerprint == fingerprint
    assert parse_host_key(fingerprint).kind is None
    assert "ssh-rsa" not in signatures(parse_host_key(fingerprint).kinds())  # SHA-1


def test_what_is_no_pin_is_refused(key: tuple[str, str, str], tmp_path: Path) -> None:
    kind, blob, fingerprint = key
    other = "ssh-rsa" if kind == "ssh-ed25519" else "ssh-ed25519"
    for text in (
        "", "   ", fingerprint[:-1], fingerprint.replace("SHA256", "MD5"), blob, kind, f"{other} {blob}",
        f"{kind} {blob[:-9]}!", f"@cert-authority * {kind} {blob}", f"@revoked * {kind} {blob}",
        f"{kind} {blob}\n{kind} {blob}", f"ssh-dss {blob}",
    ):  # fmt: skip
        with pytest.raises(ParamsError):
            parse_host_key(text)

"""A pinned host key, as people have it: a line of known_hosts, a public key, or `SHA256:` and a fingerprint."""

import base64
import binascii
import hashlib
import itertools
import re
from dataclasses import dataclass

from pocketbert.errors import ParamsError

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}=?")
_FIX = "Pin the line that `ssh-keyscan -t ed25519 ADDRESS` prints, once you compared it with the device's own screen."
# What a server may sign with, by the kind of key: RSA's own name stands for SHA-1 alone.
_SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
# The kinds of keys that OpenSSH makes, in its order of preference.
KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")


@dataclass(frozen=True)
class PinnedKey:
    """The one key that a server may show: its SHA-256 fingerprint, and its kind where that is known."""

    fingerprint: str
    kind: str | None

    def kinds(self) -> list[str]:
        """All kinds, the pinned one first: the server shows its key of the first kind that it has."""
        return sorted(KINDS, key=lambda kind: kind != self.kind)


def signatures(kinds: list[str]) -> list[str]:
    """The signature algorithms by which a server is asked for keys of these kinds."""
    return [name for kind in kinds for name in _SIGNATURES.get(kind, (kind,))]


def parse_host_key(text: str) -> PinnedKey:
    """Read `host_key` of devices.yaml; raises ParamsError.

    The names at the start of a known_hosts line (hashed ones too) are not compared: the entry's own address is what
    the key is pinned to.
    """
    text = text.strip()
    if _FINGERPRINT.fullmatch(text):
        return PinnedKey(text.rstrip("="), None)
    if "\n" in text or text.startswith("@"):
        raise ParamsError("host_key is more than one plain key (a marker, or several lines)", _FIX)
    fields = text.split()
    for kind, blob in itertools.pairwise(fields):
        if kind in KINDS:
            return PinnedKey(_fingerprint(kind, blob), kind)
    raise ParamsError(f"host_key holds no key of a known kind: {text[:60]!r}", _FIX)


def _fingerprint(kind: str, blob: str) -> str:
    """SHA-256 of the key's wire form (RFC 4253, section 6.6), which starts with the length and name of its kind."""
    try:
        data = base64.b64decode(blob, validate=True)
    except binascii.Error as error:
        raise ParamsError(f"host_key's {kind} is not base64: {blob[:20]!r}", _FIX) from error
    if not data.startswith(len(kind).to_bytes(4, "big") + kind.encode()):
        raise ParamsError(f"host_key says {kind} and holds another kind of key", _FIX)
    return "SHA256:" + base64.b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")

"""Passwords never leave this process: not into logs, provenance files, tags or spooled records."""

import re

_USER_INFO = re.compile(r"(?<=://)[^/\s'\"]*:[^/\s'\"]*@")
_QUERY = re.compile(r"(?i)(?<=[?&])((?:[\w.-]*(?:password|passwd|pwd|token|secret)[\w.-]*)=)[^&\s'\"]+")


def hide_secrets(text: str) -> str:
    """`text` with `user:password@` of every URI, and password-like query values, replaced by asterisks."""
    return _QUERY.sub(r"\1***", _USER_INFO.sub("***@", text))


def hide_secrets_in(document: object) -> object:
    """A JSON-like document with `hide_secrets` applied to every string in it, keys excepted."""
    if isinstance(document, str):
        return hide_secrets(document)
    if isinstance(document, dict):
        return {key: hide_secrets_in(value) for key, value in document.items()}
    if isinstance(document, list):
        return [hide_secrets_in(value) for value in document]
    return document

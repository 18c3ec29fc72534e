"""Nested parameters and metrics as the flat names that MLflow keeps."""

import json
import re
from collections.abc import Mapping

from pocketbert.redaction import hide_secrets

# MLflow's own limits (mlflow.utils.validation): names of letters, digits and _-./: and space.
_KEY_LENGTH = 250
_PARAM_LENGTH = 6000
_FORBIDDEN = re.compile(r"[^\w./:\- ]")


def safe_key(key: str) -> str:
    """A name that every MLflow store accepts: forbidden characters become `_`, at most 250 characters."""
    parts = _FORBIDDEN.sub("_", key)[:_KEY_LENGTH].split("/")
    # MLflow may use names as paths and refuses "a//b", "./a" and "a/../b".
    return "/".join(part if part.strip(".") else "_" for part in parts if part) or "_"


def flatten(document: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`; lists stay whole."""
    flat: dict[str, object] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def split_summary(metrics: Mapping[str, object], prefix: str = "") -> tuple[dict[str, float], dict[str, str]]:
    """Flattened (numbers, texts) of a stage's metrics; None, unknown, is in neither."""
    numbers: dict[str, float] = {}
    texts: dict[str, str] = {}
    for key, value in flatten(metrics, prefix).items():
        if isinstance(value, (bool, int, float)):
            numbers[safe_key(key)] = float(value)
        elif value is not None:
            texts[safe_key(key)] = hide_secrets(str(value))
    return numbers, texts


def flatten_params(document: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Flattened parameters as MLflow's strings: texts as they are, anything else as JSON; without secrets."""
    flat: dict[str, str] = {}
    for key, value in flatten(document, prefix).items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        flat[safe_key(key)] = hide_secrets(text)[:_PARAM_LENGTH]
    return flat

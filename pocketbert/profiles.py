"""Merge profiles (partial YAML files) into params.yaml, keeping its comments."""

import io
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from pocketbert.errors import ParamsError, StorageError
from pocketbert.params import Params, parse_params, read_yaml


def merge_profiles(params_path: Path, profiles: list[Path]) -> Params:
    """Merge `profiles` into `params_path`, the last one winning; raises ParamsError and then changes nothing.

    Mappings are merged key by key, everything else is replaced, and so is a mapping whose `kind` changes (its
    keys are those of another kind).
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    read_yaml(params_path)
    yaml = YAML()
    # As params.yaml is written: dashes indented, null spelt out, quotes and line breaks kept.
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.Representer = type("NullSpeltOut", (RoundTripRepresenter,), {})
    yaml.Representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    document = yaml.load(params_path.read_text(encoding="utf-8")) or {}
    for profile in profiles:
        overrides = read_yaml(profile)
        if not isinstance(overrides, dict):
            raise ParamsError(f"{profile} holds no mapping", "Write it like params.yaml: a section, then its keys.")
        deep_merge(document, overrides)
    buffer = io.StringIO()
    yaml.dump(document, buffer)
    plain = YAML(typ="safe").load(buffer.getvalue())
    params = parse_params(plain, Path(" + ".join(map(str, [params_path, *profiles]))))
    _replace(params_path, buffer.getvalue())
    return params


def deep_merge(target: MutableMapping[str, Any], overrides: MutableMapping[str, Any]) -> None:
    """Write `overrides` into `target`, in place."""
    for key, value in overrides.items():
        current = target.get(key)
        if isinstance(current, MutableMapping) and isinstance(value, MutableMapping) and _same_kind(current, value):
            deep_merge(current, value)
        else:
            target[key] = value


def _same_kind(current: MutableMapping[str, Any], value: MutableMapping[str, Any]) -> bool:
    return bool(value.get("kind", current.get("kind")) == current.get("kind"))


def _replace(path: Path, text: str) -> None:
    """Write `path` in one step: it holds the old text or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}", "Free space, or allow writing.") from error
    finally:
        temporary.unlink(missing_ok=True)

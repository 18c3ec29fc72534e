"""What pydantic found wrong, said in the words of the file."""

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pocketbert.redaction import hide_secrets

_SECTION_TYPES = ("model_type", "model_attributes_type", "dict_type")


def explain_mistakes(error: ValidationError, model: type[BaseModel], raw: object) -> str:
    """All mistakes of `raw`, the content of a file that should be a `model`: one clause a place, on one line."""
    places: dict[str, list[str]] = {}
    for mistake in error.errors():
        where = ".".join(_place(mistake, raw)) or "the file"
        head, reason = _clause(mistake, where, model)
        # Each member of a union has its own complaint about one value.
        places.setdefault(head, []).append(reason)
    return hide_secrets("; ".join(f"{head}{' or '.join(dict.fromkeys(reasons))}" for head, reasons in places.items()))


def _place(mistake: Any, raw: object) -> list[str]:
    """Where it is in the file: pydantic's location without the members of unions, which the file does not name."""
    parts: list[str] = []
    node: Any = raw
    for part in mistake["loc"]:
        if part in node if isinstance(node, Mapping) else isinstance(node, list) and isinstance(part, int):
            node = node[part]
            parts.append(str(part))
    return [*parts, str(mistake["loc"][-1])] if mistake["type"] == "missing" else parts


def _clause(mistake: Any, where: str, model: type[BaseModel]) -> tuple[str, str]:
    """What is wrong, and why."""
    kind, value = mistake["type"], mistake["input"]
    if kind == "extra_forbidden":
        known = _keys_at(model, mistake["loc"][:-1])
        near = difflib.get_close_matches(str(mistake["loc"][-1]), known, n=1, cutoff=0.5)
        return f"unknown key {where!r}, ", f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    if not mistake["loc"] and kind == "value_error":
        # Of sections that do not go together: it names them.
        return "", str(mistake["msg"]).removeprefix("Value error, ")
    if kind == "missing":
        return f"{where} ", "is missing"
    if kind == "union_tag_not_found":
        return f"{where} ", f"needs the key {mistake['ctx']['discriminator']}"
    if kind in _SECTION_TYPES and value is None:
        return f"{where} ", "is empty: write its keys below it, or leave it out"
    if kind in _SECTION_TYPES:
        return f"{where} = {value!r}: ", "should be a section of keys"
    return f"{where} = {value!r}: ", str(mistake["msg"]).removeprefix("Value error, ")


def _keys_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """The keys that are allowed at `location` inside `model`."""
    models: list[type[BaseModel]] = [model]
    for part in location:
        tagged = [m for m in models if part in _tags(m)]
        # Neither a tag nor a key of its section: a name that the file chose, or an index.
        inner = [i for m in models for n, f in m.model_fields.items() if part in (n, f.alias) for i in _models_in(f)]
        models = tagged or inner or models
    return sorted({f.alias or n for m in models for n, f in m.model_fields.items()})


def _tags(model: type[BaseModel]) -> tuple[object, ...]:
    """The values of `kind` by which pydantic names a member of a union in a location."""
    kind = model.model_fields.get("kind")
    return get_args(kind.annotation) if kind else ()


def _models_in(field: Any) -> list[type[BaseModel]]:
    """The sections that a field (or a part of its type) may hold."""
    annotation = getattr(field, "annotation", field)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]

"""Every parameter of a torch model, looked for by value among the constants of a shipped file.

A file is not trusted to name its tensors. A parameter is found where the file holds the same bits, in the same
layout or transposed (as its neighbours are), or one of the few values that a converter may put in its place
(`permitted_values`).
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Key = tuple[tuple[int, ...], str]

# A product of a matrix and a vector that a converter folds is rounded in an order of its own.
FOLDED_TOLERANCE = 1e-6
_UNUSED = re.compile(r"(^|\.)(position_ids|token_type_ids|pooler\.dense\.(weight|bias))$")
_QUERY = re.compile(r"\.(query|q_lin)\.(weight|bias)$")
_SHARED_BOTTLENECK = re.compile(r"^(.*)\.bottleneck\.attention\.(dense|LayerNorm)\.bias$")


@dataclass(frozen=True)
class TensorComparison:
    """What became of a model's parameters in a file."""

    compared: int
    equal: int
    # Parameters that are in the file in no permitted form: names, sorted; "(transposed)" where one lies across others.
    missing: tuple[str, ...]
    # Constants of the file, beyond single numbers, that are no parameter: name and shape.
    unknown: tuple[str, ...]
    # How often each form was found: {"identity": 97, "transposed": 12, ...}.
    forms: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def used_parameters(names: Iterable[str], config: Any) -> set[str]:
    """The parameters that a classifier's logits depend on; `config` is its encoder's configuration.

    transformers' MobileBERT holds two kinds of layers that some configurations never call.
    """
    idle = [_UNUSED]
    if getattr(config, "use_bottleneck_attention", False):
        idle.append(re.compile(r"\.bottleneck\.attention\."))
    if config.model_type == "mobilebert" and not config.trigram_input and config.embedding_size == config.hidden_size:
        idle.append(re.compile(r"\.embedding_transformation\."))
    return {name for name in names if not any(pattern.search(name) for pattern in idle)}


def compare_tensors(
    parameters: Mapping[str, Array], constants: Mapping[str, Array], config: Any, sequence_length: int | None
) -> TensorComparison:
    """Look for each torch parameter among a file's float constants.

    `config` is the encoder's transformers configuration, `sequence_length` the file's static length (None: dynamic).
    """
    held: dict[Key, list[str]] = {}
    for name, constant in constants.items():
        held.setdefault(_key(constant), []).append(name)
    forms: dict[str, str] = {}
    missing, seen = [], set()
    wanted = used_parameters(parameters, config)
    for name in sorted(wanted):
        for form, value, exact in permitted_values(name, parameters, config, sequence_length):
            found = _key(value) if exact else _nearest(value, held, constants)
            if found in held:
                forms[name] = form
                seen.add(found)
                break
        else:
            missing.append(name)
    missing += [f"{name} (transposed)" for name in _turned(forms, parameters)]
    unknown = [
        f"{names[0]} {list(constants[names[0]].shape)}"
        for key, names in held.items()
        if key not in seen and constants[names[0]].size > 1
    ]
    found_count = len(wanted) - len(missing)
    counts = dict(Counter(forms.values()))
    return TensorComparison(len(wanted), found_count, tuple(sorted(missing)), tuple(sorted(unknown)), counts)


def _turned(forms: Mapping[str, str], parameters: Mapping[str, Array]) -> Iterator[str]:
    """Square kernels that lie across all oblong ones of their part (encoder, head), whose shape gives theirs away."""
    kernels = [name for name in forms if parameters[name].ndim == 2 and not name.endswith("_embeddings.weight")]
    oblong: dict[str, set[bool]] = {}
    for name in kernels:
        if len(set(parameters[name].shape)) == 2:
            oblong.setdefault(name.split(".")[0], set()).add(forms[name] == "transposed")
    for name in kernels:
        value = parameters[name]
        square = len(set(value.shape)) == 1 and not np.array_equal(value, value.T)
        if square and oblong.get(name.split(".")[0]) == {forms[name] != "transposed"}:
            yield name


def permitted_values(
    name: str, parameters: Mapping[str, Array], config: Any, sequence_length: int | None
) -> Iterator[tuple[str, Array, bool]]:
    """The values that may stand for parameter `name`, each with the name of its form and whether bits must match."""
    value = parameters[name]
    yield "identity", value, True
    if value.ndim == 2:
        yield "transposed", value.T, True
    if _QUERY.search(name):
        scale = np.float32(1.0 / math.sqrt(_head_size(config)))
        yield "scaled by 1/sqrt(head size)", value * scale, True
    yield from _embedding_rows(name, parameters, config, sequence_length)
    yield from _folded_no_norm(name, parameters, config)


def _embedding_rows(
    name: str, parameters: Mapping[str, Array], config: Any, length: int | None
) -> Iterator[tuple[str, Array, bool]]:
    """Of a file of static length: the positions in use, alone or with the only token type added."""
    if length is None or not name.endswith(("position_embeddings.weight", "token_type_embeddings.weight")):
        return
    prefix = name.rsplit(".", 2)[0]
    positions = parameters[f"{prefix}.position_embeddings.weight"]
    types = parameters.get(f"{prefix}.token_type_embeddings.weight")
    # RoBERTa numbers positions from pad_token_id + 1 on.
    start = (config.pad_token_id or 0) + 1 if types is not None and "roberta" in config.model_type else 0
    # A fused graph's own table holds these rows alone.
    start = 0 if len(positions) == length else start
    used = positions[start : start + length]
    if name.endswith("position_embeddings.weight"):
        yield "rows in use", used, True
    if types is not None and len(types) == 1:
        yield "rows in use + only token type", used + types[0], True


def _folded_no_norm(name: str, parameters: Mapping[str, Array], config: Any) -> Iterator[tuple[str, Array, bool]]:
    """MobileBERT: a NoNorm right behind a linear layer, and the bias of the shared bottleneck in its two readers."""
    match = re.match(r"^(.*\.bottleneck\.(?:input|attention))\.(dense|LayerNorm)\.(weight|bias)$", name)
    apart = match and f"{match[1]}.LayerNorm.weight" in parameters
    if match and apart and getattr(config, "normalization_type", None) == "no_norm":
        dense, gain = f"{match[1]}.dense", parameters[f"{match[1]}.LayerNorm.weight"]
        if match[3] == "weight":
            yield "linear * NoNorm", parameters[f"{dense}.weight"] * gain[:, None], True
        yield "linear * NoNorm", parameters[f"{dense}.bias"] * gain + parameters[f"{match[1]}.LayerNorm.bias"], True
    if getattr(config, "use_bottleneck_attention", False):
        return
    reader = re.match(r"^(.*)\.attention\.self\.(query|key)\.bias$", name)
    shared = _SHARED_BOTTLENECK.match(name)
    layer = (reader or shared or [None, None])[1]
    if layer is None or f"{layer}.bottleneck.attention.dense.bias" not in parameters:
        return
    entry, part = f"{layer}.bottleneck.attention", reader[2] if reader else "key"
    shift = parameters[f"{entry}.dense.bias"]
    # Of a fused graph's tensors the norm is in the linear layer already.
    if f"{entry}.LayerNorm.weight" in parameters:
        shift = shift * parameters[f"{entry}.LayerNorm.weight"] + parameters[f"{entry}.LayerNorm.bias"]
    shift = shift.astype(np.float64)
    weight = parameters[f"{layer}.attention.self.{part}.weight"].astype(np.float64)
    folded = weight @ shift + parameters[f"{layer}.attention.self.{part}.bias"]
    scale = 1.0 / math.sqrt(_head_size(config)) if part == "query" else 1.0
    yield "bias + W (shared bottleneck's bias)", (folded * scale).astype(np.float32), False


def _head_size(config: Any) -> int:
    width = getattr(config, "true_hidden_size", config.hidden_size)
    return int(width // config.num_attention_heads)


def _key(value: Array) -> Key:
    """Identity by bits; axes of size 1 do not count."""
    contiguous = np.ascontiguousarray(value)
    return tuple(n for n in value.shape if n != 1), hashlib.sha256(contiguous.tobytes()).hexdigest()


def _nearest(value: Array, held: Mapping[Key, list[str]], constants: Mapping[str, Array]) -> Key | None:
    """The constant of the same shape within FOLDED_TOLERANCE of the value's largest element, if any."""
    shape = tuple(n for n in value.shape if n != 1)
    limit = FOLDED_TOLERANCE * float(np.abs(value).max(initial=0.0))
    for key, names in held.items():
        if key[0] == shape and float(np.abs(constants[names[0]].reshape(value.shape) - value).max()) <= limit:
            return key
    return None

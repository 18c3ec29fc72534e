"""Which input of a foreign file is which: by name, else by order, else by trying; what was assumed is said."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

from pocketbert.errors import ProofError
from pocketbert.runtimes.base import TensorSpec

ROLES = ("input_ids", "attention_mask", "token_type_ids")
# Other makers' names: TF Hub and the TF model garden, Keras, MediaPipe and MLPerf files.
_ALIASES = {
    "input_ids": r"input_?ids?|input_word_ids|word_ids|ids|tokens?|token_ids",
    "attention_mask": r"(attention|input|padding)_?mask|mask|input_masks",
    "token_type_ids": r"token_?type_?ids|segment_?ids|input_type_ids|segments?|type_ids",
    "position_ids": r"position_?ids|positions?",
}


@dataclass(frozen=True)
class Binding:
    """The role of each input, in the file's order, and what had to be assumed for it."""

    roles: tuple[str, ...]
    assumed: tuple[str, ...] = ()
    # True where no name gave the roles away: other orders are worth a try.
    guessed: bool = False


def bind(inputs: tuple[TensorSpec, ...]) -> Binding:
    """Give each input its role; raises ProofError where there is no way to."""
    for spec in inputs:
        if len(spec.shape) > 2 or (len(spec.shape) == 2 and spec.dtype.startswith(("string", "complex"))):
            raise ProofError(
                f"input {spec.name!r} is {spec.dtype}{list(spec.shape)}, not token ids or a mask",
                "Compare models that take rows of token ids [rows, length].",
            )
    named = [_role(spec.name) for spec in inputs]
    if None not in named and len(set(named)) == len(named) and "input_ids" in named:
        roles = tuple(str(role) for role in named)
        said = [
            f"input {s.name!r} is taken as {r} by its name" for s, r in zip(inputs, roles, strict=True) if s.name != r
        ]
        return Binding(roles, tuple(said))
    if len(inputs) > len(ROLES):
        names = ", ".join(spec.name for spec in inputs)
        raise ProofError(f"{len(inputs)} inputs of unknown roles: {names}", "Name them input_ids, attention_mask, ...")
    roles = ROLES[: len(inputs)]
    said = [
        f"input {i} ({s.name!r}) is taken as {r} by its position"
        for i, (s, r) in enumerate(zip(inputs, roles, strict=True))
    ]
    return Binding(roles, tuple(said), guessed=len(inputs) > 1)


def other_orders(binding: Binding) -> Iterator[tuple[str, ...]]:
    """The same roles in every other order; for guessed inputs also two inputs as ids and token types."""
    candidates = [*permutations(binding.roles)]
    if binding.guessed and len(binding.roles) == 2:
        candidates += permutations(("input_ids", "token_type_ids"))
    yield from (roles for roles in candidates if roles != binding.roles)


def _role(name: str) -> str | None:
    """The role that a name gives away, without a converter's prefix and port number."""
    plain = re.sub(r"^(serving_default|model|inputs?)[_/](?=\w{3})", "", name.split(":")[0].lower())
    for candidate in (name.split(":")[0].lower(), plain):
        for role, pattern in _ALIASES.items():
            if re.fullmatch(pattern, candidate):
                return role
    return None

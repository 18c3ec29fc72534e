"""What a byte-level BPE vocabulary needs beside the tokens of a text."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from pocketbert.errors import ExportError

# Settings under which a token's merges do not depend on what surrounds it.
_PLAIN = {
    "dropout": (None, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}


def fallback_tokens(model: dict[str, Any], kept: Iterable[str]) -> set[str]:
    """The 256 bytes, and every token that the merges of a kept one pass through.

    `model` is the model of tokenizer.json. The merges inside of a token are those of its own bytes alone, whatever
    surrounds it; so the merges that are left do the same, in the same order, in every text of kept tokens. Raises
    ExportError for a BPE tokenizer without the bytes or with settings under which that does not hold.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = ByteLevel.alphabet()
    odd = [name for name, plain in _PLAIN.items() if model.get(name) not in plain]
    if odd or not set(alphabet) <= set(model["vocab"]):
        reason = f"sets {', '.join(odd)}" if odd else "does not hold all 256 bytes"
        raise ExportError(
            f"a vocabulary cannot be trimmed where the BPE tokenizer {reason}", "Set `vocabulary: full` for it."
        )
    ranks = {as_pair(merge): rank for rank, merge in enumerate(model["merges"])}
    return set(alphabet).union(*(_derivation(token, ranks) for token in kept))


def kept_merges(model: dict[str, Any]) -> list[Any]:
    """The merges of tokens that `model`'s vocabulary still holds, in their order."""

    def held(pair: tuple[str, str]) -> bool:
        return all(token in model["vocab"] for token in (*pair, "".join(pair)))

    return [merge for merge in model["merges"] if held(as_pair(merge))]


def as_pair(merge: str | list[str]) -> tuple[str, str]:
    """A merge as tokenizer.json holds it: "a b" in older files, ["a", "b"] in newer ones."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _derivation(token: str, ranks: dict[tuple[str, str], int]) -> set[str]:
    """What the merges of a token's own bytes make on their way."""
    parts, made = list(token), set()
    while pairs := [pair for pair in pairwise(parts) if pair in ranks]:
        first = min(pairs, key=ranks.__getitem__)
        position = next(i for i, pair in enumerate(pairwise(parts)) if pair == first)
        parts[position : position + 2] = ["".join(first)]
        made.add(parts[position])
    return made

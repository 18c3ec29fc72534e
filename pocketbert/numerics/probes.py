"""Rows on which two models must agree, chosen so that a wrong model shows itself.

Real rows alone do not do it: with no row of two segments a swap of mask and token types is hardly seen, and with
masks that only follow the padding a model that ignores its mask looks right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ProofError

Int = NDArray[np.int32]
# Rows of each of the special kinds.
LONGEST, HOLES, SHORTENED, SEGMENTS = 4, 8, 8, 8


@dataclass(frozen=True)
class Probes:
    """Inputs int32 [rows, length], padded on the right with `pad_id`, and the kind of each row."""

    inputs: dict[str, Int]
    kinds: list[str]
    pad_id: int

    def __len__(self) -> int:
        return len(self.kinds)

    def lengths(self) -> Int:
        """Columns of each row up to its last token that is no padding (1 at least): int32 [rows]."""
        tokens = self.inputs["input_ids"] != self.pad_id
        columns = tokens.shape[1] - np.argmax(tokens[:, ::-1], axis=1)
        return np.where(tokens.any(axis=1), columns, 1).astype(np.int32)

    def padded(self, length: int) -> dict[str, Int]:
        """The same rows in `length` columns, no less than they have."""
        extra = ((0, 0), (0, length - self.inputs["input_ids"].shape[1]))
        fill = {"input_ids": self.pad_id}
        return {name: np.pad(rows, extra, constant_values=fill.get(name, 0)) for name, rows in self.inputs.items()}


def make_probes(
    encoder: TextEncoder, texts: Sequence[str], rows: int, length: int, *, seed: int, token_types: bool
) -> Probes:
    """`rows` texts drawn with `seed`, the longest ones, and the special kinds, in `length` columns.

    Kinds: real; longest; holes (tokens inside the row masked); shortened (the mask ends before the ids do);
    segments (token type 1 on the second half, where the model has token types); padding (a single row of nothing
    else). Raises ProofError without a text.
    """
    if not texts:
        raise ProofError("there is no text to compare the models on", "Check the test split: data/prepared.")
    random = np.random.default_rng(seed)
    drawn = random.choice(len(texts), size=min(rows, len(texts)), replace=False)
    real = _encode(encoder, [texts[i] for i in drawn], length)
    tokens = np.array([len(ids) for ids in encoder.encode_rows(texts, length)])
    longest = _encode(encoder, [texts[i] for i in np.argsort(-tokens, kind="stable")[:LONGEST]], length)
    parts = {
        "real": real,
        "longest": longest,
        "holes": _holes(_head(real, HOLES), random),
        "shortened": _shortened(_head(real, SHORTENED), random),
        **({"segments": _segments(_head(real, SEGMENTS))} if token_types else {}),
        "padding": _padding(length, encoder.pad_id),
    }
    inputs = {name: np.concatenate([part[name] for part in parts.values()]) for name in real}
    kinds = [kind for kind, part in parts.items() for _ in part["input_ids"]]
    return Probes(inputs, kinds, encoder.pad_id)


def _encode(encoder: TextEncoder, texts: Sequence[str], length: int) -> dict[str, Int]:
    return encoder.encode(texts, max_length=length, pad_to=length)


def _head(part: dict[str, Int], rows: int) -> dict[str, Int]:
    return {name: values[:rows].copy() for name, values in part.items()}


def _holes(part: dict[str, Int], random: np.random.Generator) -> dict[str, Int]:
    """Mask a third of the tokens, the first one never."""
    holes = random.random(part["attention_mask"].shape) < 1 / 3
    holes[:, 0] = False
    part["attention_mask"][holes] = 0
    return part


def _shortened(part: dict[str, Int], random: np.random.Generator) -> dict[str, Int]:
    """End the mask somewhere inside the row while the ids go on."""
    for mask in part["attention_mask"]:
        mask[random.integers(1, max(int(mask.sum()), 2)) :] = 0
    return part


def _segments(part: dict[str, Int]) -> dict[str, Int]:
    """Give the second half of each row's tokens the token type 1."""
    for types, mask in zip(part["token_type_ids"], part["attention_mask"], strict=True):
        count = int(mask.sum())
        types[count // 2 : count] = 1
    return part


def _padding(length: int, pad_id: int) -> dict[str, Int]:
    empty = np.zeros((1, length), dtype=np.int32)
    return {"input_ids": np.full_like(empty, pad_id), "attention_mask": empty, "token_type_ids": empty.copy()}

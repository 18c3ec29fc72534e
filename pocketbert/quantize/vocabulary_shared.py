"""Which tokens share a row of the word embeddings: those that the training text lacks borrow the nearest one's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ParamsError
from pocketbert.quantize.vocabulary_tokens import TokenIds, frequent_tokens, special_tokens

# Rows of cosines held at a time: a block of [2048, tokens of the text].
_BLOCK = 2048
# No row is truncated while tokens are counted.
_WHOLE = 1_000_000


@dataclass(frozen=True)
class SeenTokens:
    """Ids, ascending: those with a row of their own, and those of them that lend it to others."""

    kept: TokenIds
    # Without special tokens: no word stands for a separator.
    lenders: TokenIds


def seen_tokens(folder: Path, texts: Sequence[str], rows: int = 0) -> SeenTokens:
    """The tokens of `texts` and the special ones, by the tokenizer in `folder`, filled up to `rows` with frequent ones.

    Raises ParamsError where `rows` are fewer than the texts need.
    """
    encoder = TextEncoder(folder)
    special = special_tokens(folder) | set(range(encoder.pad_id + 1))
    words = {token for row in encoder.encode_rows(texts, _WHOLE) for token in row} - special
    kept = words | special
    if 0 < rows < len(kept):
        raise ParamsError(
            f"{rows} rows are asked for, but the training text has {len(kept)} tokens",
            "Raise `vocabulary_rows` of this recipe, or leave it out.",
        )
    frequent = [token for token in frequent_tokens(folder) if token not in kept][: max(rows - len(kept), 0)]
    return SeenTokens(
        np.array(sorted(kept.union(frequent)), np.int64), np.array(sorted(words.union(frequent)), np.int64)
    )


def rows_of_tokens(table: NDArray[np.float32], seen: SeenTokens) -> NDArray[np.int32]:
    """For each id its row among the kept ones, int32 [ids]: its own, or that of the lender of the greatest cosine."""
    unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    lenders = unit[seen.lenders].T
    rows = np.zeros(len(table), np.int32)
    others = np.setdiff1d(np.arange(len(table)), seen.kept)
    for start in range(0, len(others), _BLOCK):
        block = others[start : start + _BLOCK]
        nearest = seen.lenders[(unit[block] @ lenders).argmax(axis=1)]
        rows[block] = np.searchsorted(seen.kept, nearest)
    rows[seen.kept] = np.arange(len(seen.kept))
    return rows


def rows_of_kept_tokens(folder: Path, seen: SeenTokens, texts: Sequence[str]) -> NDArray[np.bool_]:
    """For each text whether all of its tokens have a row of their own, bool [texts]."""
    kept = set(seen.kept.tolist())
    return np.array([kept.issuperset(row) for row in TextEncoder(folder).encode_rows(texts, _WHOLE)], np.bool_)

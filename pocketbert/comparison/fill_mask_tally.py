"""Running figures of two masked-language models, and the words that are masked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.comparison.rows import Row
from pocketbert.errors import ParamsError, ProofError

Logits = NDArray[np.float32]
TOP = 5
_MASK_TOKENS = ("[MASK]", "<mask>")


def favourites(logits: NDArray[np.float32]) -> NDArray[np.intp]:
    """The five largest of the logits [vocabulary] of one position, the largest first."""
    return np.argsort(-logits, kind="stable")[:TOP]


@dataclass
class Tally:
    """Running figures over real positions; logits of 30,000 words at every position are too many to keep."""

    count: int = 0
    values: int = 0
    largest: float = 0.0
    total: float = 0.0
    masked: int = 0
    same_first: int = 0
    same_five: int = 0
    _sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    _squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))

    def add(self, row: Row, reference: Logits, candidate: Logits, masked: Sequence[int]) -> list[int]:
        """Take in a row; returns the masked positions whose five favourites differ."""
        if reference.shape != candidate.shape:
            raise ProofError(
                f"logits of shape {candidate.shape} instead of {reference.shape}",
                "The two models must have the same vocabulary; export the model again.",
            )
        real = reference[row["attention_mask"][0] > 0].astype(np.float64)
        gaps = np.abs(real - candidate[row["attention_mask"][0] > 0])
        self.count, self.values = self.count + len(real), self.values + gaps.size
        self.largest, self.total = max(self.largest, float(gaps.max())), self.total + float(gaps.sum())
        self._sum = self._sum + real.sum(axis=0)
        self._squares = self._squares + np.square(real).sum(axis=0)
        differing = []
        for position in masked:
            ours, theirs = favourites(reference[position]), favourites(candidate[position])
            self.masked += 1
            self.same_first += int(ours[0] == theirs[0])
            same = set(ours.tolist()) == set(theirs.tolist())
            self.same_five += int(same)
            if not same:
                differing.append(position)
        return differing

    def spread(self) -> float:
        """Mean over the vocabulary of the standard deviation over positions."""
        mean = self._sum / self.count
        return float(np.sqrt(np.maximum(self._squares / self.count - mean**2, 0.0)).mean())


class Words:
    """The mask token and the words of a tokenizer."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        found = (self._tokenizer.token_to_id(token) for token in _MASK_TOKENS)
        mask = next((index for index in found if index is not None), None)
        if mask is None:
            raise ParamsError(
                f"the tokenizer in {folder} has no mask token ({' or '.join(_MASK_TOKENS)})",
                "Name that of the masked-language model with --tokenizer.",
            )
        self._mask: int = mask

    def mask(self, row: Row, seed: int) -> list[int]:
        """Positions of the mask tokens of a row; where it holds none, a word drawn with `seed` is masked in place."""
        ids, tokens = row["input_ids"][0], int(row["attention_mask"][0].sum())
        positions = np.flatnonzero(ids[:tokens] == self._mask).tolist()
        # The first and the last token are those that a tokenizer puts around every text.
        if not positions and tokens > 2:
            positions = [int(np.random.default_rng(seed).integers(1, tokens - 1))]
            ids[positions] = self._mask
        return positions

    def names(self, ids: NDArray[np.intp]) -> tuple[str, ...]:
        """Words of token ids."""
        return tuple(str(self._tokenizer.id_to_token(int(i))) for i in ids)

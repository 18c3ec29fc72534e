"""`pocketbert compare A B --task fill-mask`: two masked-language models on the same masked words."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.comparison.fill_mask_side import LmSide, open_lm_side, token_logits
from pocketbert.comparison.fill_mask_tally import Tally, Words, favourites
from pocketbert.comparison.rows import choose_tokenizer, common_length, encode, hard_rows, read_texts
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ProofError
from pocketbert.numerics.logits import SPREAD_MIN

WORST_ROWS = 5
# A row without a single token has no right answer: its difference is shown, not judged.
UNJUDGED = "padding"


@dataclass(frozen=True)
class MaskedWord:
    """A masked word for which the two models have other favourites."""

    row: int
    text: str
    top_a: tuple[str, ...]
    top_b: tuple[str, ...]


@dataclass(frozen=True)
class FillMaskComparison:
    """A is the reference; differences are relative to the spread of its logits over the real positions of the rows."""

    a: str
    b: str
    engines: tuple[str, str]
    rows: int
    positions: int
    max_abs_diff: float
    mean_abs_diff: float
    max_rel_diff: float
    # Mean over the vocabulary of the standard deviation over positions.
    spread: float
    # Masked words with the same first guess, and with the same five guesses in any order: shares.
    top1_agreement: float
    top5_agreement: float
    masked: int
    # Kind of row -> largest difference relative to the spread, None where it is no number.
    hard_rows: dict[str, float | None]
    differing: tuple[MaskedWord, ...]
    said: tuple[str, ...]

    @property
    def judged(self) -> float:
        """The largest relative difference over the data and the hard rows that have a right answer."""
        hard = [math.inf if gap is None else gap for kind, gap in self.hard_rows.items() if kind != UNJUDGED]
        return max([self.max_rel_diff, *hard])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        judged = self.judged
        return {"task": "fill-mask"} | asdict(self) | {"judged_rel_diff": judged if math.isfinite(judged) else None}

    def check(self, limit: float) -> None:
        """Raise ProofError where the two are further apart than `limit`, relative to the spread."""
        if self.judged > limit:
            raise ProofError(
                f"{self.b} is {self.judged:.3g} of the spread away from {self.a}, over the limit of {limit:.3g} (data "
                f"{self.max_rel_diff:.3g}, the same five guesses for {self.top5_agreement:.4f} of the masked words)",
                "Look at the masked words that differ and at the kinds of rows.",
            )


def compare_masked(
    a: Path, b: Path, data: Path, *, tokenizer: Path | None = None, text_column: str | None = None, rows: int = 256
) -> FillMaskComparison:
    """Mask a word of each row (or take the [MASK] that it holds) and compare logits and favourites, row by row.

    Raises CheckpointError, DeviceError, DataError and ParamsError where something cannot be opened, ProofError where
    the two have no comparable logits; a NaN is named with the tensor where it arises.
    """
    texts = read_texts(data, text_column, rows)
    first, second = open_lm_side(a), open_lm_side(b)
    said: list[str] = []
    encoder = choose_tokenizer(tokenizer, first.path, second.path, said)
    words = Words(encoder.folder)
    length, padded = common_length(first, second, said)
    said += [f"{side.path}: {line}" for side in (first, second) for line in side.assumed]
    batches = encode(encoder, texts.texts, length, padded)
    tally = Tally()
    differing = []
    for number, text, row in zip(texts.numbers, texts.texts, batches, strict=True):
        masked = words.mask(row, number)
        pair = token_logits(first, row, "data"), token_logits(second, row, "data")
        for position in tally.add(row, *pair, masked):
            guesses = [words.names(favourites(logits[position])) for logits in pair]
            differing.append(MaskedWord(number, text, *guesses))
    if not tally.masked:
        raise ProofError(f"no row of {data} holds a word that can be masked", "Give rows of a word at least.")
    spread = tally.spread()
    if spread < SPREAD_MIN:
        raise ProofError(
            f"the reference's logits hardly depend on the input (spread {spread:.1e})", "Compare trained models."
        )
    hard = _hard(first, second, encoder, texts.texts, length, padded)
    return FillMaskComparison(
        a=str(a),
        b=str(b),
        engines=(first.engine, second.engine),
        rows=len(batches),
        positions=tally.count,
        max_abs_diff=tally.largest,
        mean_abs_diff=tally.total / tally.values,
        max_rel_diff=tally.largest / spread,
        spread=spread,
        top1_agreement=tally.same_first / tally.masked,
        top5_agreement=tally.same_five / tally.masked,
        masked=tally.masked,
        hard_rows={kind: gap / spread if math.isfinite(gap) else None for kind, gap in hard.items()},
        differing=tuple(differing[:WORST_ROWS]),
        said=tuple(said),
    )


def _hard(
    first: LmSide, second: LmSide, encoder: TextEncoder, texts: Sequence[str], length: int, padded: bool
) -> dict[str, float]:
    """The largest |difference| at the real positions of each kind of hard row (every position of the padded one)."""
    gaps: dict[str, float] = {}
    for kind, row in hard_rows(encoder, texts, length, padded, set(first.roles) & set(second.roles)):
        reference, candidate = token_logits(first, row, kind), token_logits(second, row, kind)
        real = row["attention_mask"][0] > 0
        chosen = real if real.any() else ~real
        gap = float(np.abs(reference[chosen].astype(np.float64) - candidate[chosen]).max())
        gaps[kind] = max(gap, gaps.get(kind, 0.0)) if math.isfinite(gap) else math.inf
    return gaps

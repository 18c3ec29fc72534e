"""`pocketbert compare A B`: how far the logits of two model files are apart on the same rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.comparison.explain import explain_pair
from pocketbert.comparison.layers import LayerTable, compare_layers
from pocketbert.comparison.orders import settle_order
from pocketbert.comparison.rows import Row, Texts, choose_tokenizer, common_length, encode, hard_rows, read_texts
from pocketbert.comparison.side import FileSide, Side, class_names, is_multi_label, open_side
from pocketbert.comparison.tokens import share_tokens
from pocketbert.errors import ProofError
from pocketbert.numerics.agreement import Agreement, decision_agreement
from pocketbert.numerics.logits import SPREAD_MIN, LogitComparison, compare_logits, logit_spread

Logits = NDArray[np.float32]
Pair = tuple[Logits, Logits]
WORST_ROWS = 5
# A row without a single token has no right answer: its difference is shown, not judged.
UNJUDGED = "padding"


@dataclass(frozen=True)
class WorstRow:
    """A row of the data on which the two differ most."""

    number: int
    text: str
    max_abs_diff: float
    decision_a: str
    decision_b: str


@dataclass(frozen=True)
class Comparison:
    """A is the reference; differences are relative to the spread of its logits over the rows of the data."""

    a: str
    b: str
    engines: tuple[str, str]
    logits: LogitComparison
    agreement: Agreement
    # Hard rows made from the data: kind -> largest difference relative to the spread, None where it is no number.
    hard_rows: Mapping[str, float | None]
    worst: tuple[WorstRow, ...]
    # What was assumed or noticed, warnings marked so.
    said: tuple[str, ...]
    # None where it was not asked for.
    layers: LayerTable | None = None

    @property
    def judged(self) -> float:
        """The largest relative difference over the data and the hard rows that have a right answer."""
        hard = [math.inf if gap is None else gap for kind, gap in self.hard_rows.items() if kind != UNJUDGED]
        return max([self.logits.max_rel_diff, *hard])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        judged = self.judged
        plain = asdict(replace(self, layers=None))
        layers = self.layers and self.layers.as_dict()
        return plain | {"layers": layers, "judged_rel_diff": judged if math.isfinite(judged) else None}

    def check(self, limit: float) -> None:
        """Raise ProofError where the two are further apart than `limit`, relative to the spread."""
        if self.judged > limit:
            verdict = self.layers and self.layers.verdict()
            parted = f"; {verdict}" if verdict else ""
            raise ProofError(
                f"{self.b} is {self.judged:.3g} of the spread away from {self.a}, over the limit of {limit:.3g} "
                f"(data {self.logits.max_rel_diff:.3g}, worst at row {self.worst[0].number}){parted}",
                _swapped(self.said) or "Look at the worst rows and at the kinds of rows.",
            )


def compare_files(
    a: Path,
    b: Path,
    data: Path,
    *,
    tokenizer: Path | None = None,
    text_column: str | None = None,
    rows: int = 256,
    layers: bool = False,
    limit: float | None = None,
) -> Comparison:
    """Run both models over the same rows, one row at a time and at one shape; with `layers`, a handful layer by layer.

    Raises CheckpointError, DeviceError, DataError and ParamsError where something cannot be opened, ProofError where
    the two have no comparable logits (other classes, NaN, the same answer for every row).
    """
    texts = read_texts(data, text_column, rows)
    first, second = open_side(a), open_side(b)
    said: list[str] = []
    shared = share_tokens(first, second, said) if tokenizer is None else None
    encoder = shared or choose_tokenizer(tokenizer, first.path, second.path, said)
    length, padded = common_length(first, second, said)
    hard = hard_rows(encoder, texts.texts, length, padded, set(first.roles) & set(second.roles))
    for side in (first, second):
        said += [f"{side.path}: {line}" for line in side.assumed]
    said += _settle(first, second, [row for kind, row in hard if kind != UNJUDGED])
    real = encode(encoder, texts.texts, length, padded)
    outputs = _run(first, real), _run(second, real)
    hard_outputs = _run(first, [row for _, row in hard]), _run(second, [row for _, row in hard])
    outputs, hard_outputs = _on_one_scale(first, second, outputs, hard_outputs, said)
    figures = _compare(first, second, *outputs, said, real)
    names = _names(first, second, outputs[0].shape[1], said)
    multi_label = is_multi_label(first.path) or is_multi_label(second.path)
    table = compare_layers(first, second, _handful(real, hard, *outputs), limit) if layers else None
    return Comparison(
        a=str(a),
        b=str(b),
        engines=(first.engine, second.engine),
        logits=figures,
        agreement=decision_agreement(*outputs, multi_label=multi_label),
        hard_rows=_by_kind([kind for kind, _ in hard], *hard_outputs, figures.spread),
        worst=_worst(texts, *outputs, names),
        said=tuple(said),
        layers=table,
    )


def _handful(real: list[Row], hard: list[tuple[str, Row]], reference: Logits, candidate: Logits) -> list[Row]:
    """The two worst and two longest rows of the data and one of each kind of hard row that is judged."""
    worst = np.argsort(-np.abs(reference - candidate).max(axis=1), kind="stable")[:2]
    longest = np.argsort([-int(row["attention_mask"].sum()) for row in real], kind="stable")[:2]
    one_of_each = {kind: row for kind, row in hard if kind != UNJUDGED}
    return [*(real[i] for i in dict.fromkeys([*worst, *longest])), *one_of_each.values()]


def _settle(first: Side, second: Side, probes: list[Row]) -> list[str]:
    """Try the orders of B's inputs against A, or of A's against B where only A's have no telling names."""
    guessed = [isinstance(side, FileSide) and side.binding.guessed for side in (first, second)]
    said = ["neither file names its inputs: the order of A's is taken for right"] if all(guessed) else []
    if isinstance(second, FileSide) and guessed != [True, False]:
        return said + settle_order(second, first, probes)
    return said + settle_order(first, second, probes) if isinstance(first, FileSide) else said


def _run(side: Side, rows: list[Row]) -> Logits:
    """Logits [rows, classes]; ids are cut and padded already."""
    return np.stack([side.run(row) for row in rows]) if rows else np.empty((0, 0), dtype=np.float32)


def _by_kind(kinds: list[str], reference: Logits, candidate: Logits, spread: float) -> dict[str, float | None]:
    """The largest |difference| of each kind of row relative to the spread; None where it is no number."""
    gaps = [float(np.abs(a.astype(np.float64) - b).max()) for a, b in zip(reference, candidate, strict=True)]
    largest = {name: max(g for kind, g in zip(kinds, gaps, strict=True) if kind == name) for name in kinds}
    return {name: gap / spread if math.isfinite(gap) else None for name, gap in largest.items()}


def _on_one_scale(first: Side, second: Side, real: Pair, hard: Pair, said: list[str]) -> tuple[Pair, Pair]:
    """Where one model gives probabilities and the other logits, the softmax of the latter."""
    given = [_are_probabilities(logits) for logits in real]
    if given[0] == given[1]:
        return real, hard
    side = first if given[0] else second
    said.append(f"{side.path}: its rows sum to 1 and are taken as probabilities; the other's logits are softmaxed")
    if given[0]:
        return (real[0], _softmax(real[1])), (hard[0], _softmax(hard[1]))
    return (_softmax(real[0]), real[1]), (_softmax(hard[0]), hard[1])


def _are_probabilities(logits: Logits) -> bool:
    return bool(logits.min() >= 0 and np.allclose(logits.sum(axis=1), 1.0, atol=1e-2))


def _softmax(logits: Logits) -> Logits:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def _compare(
    first: Side, second: Side, reference: Logits, candidate: Logits, said: Sequence[str], rows: Sequence[Row]
) -> LogitComparison:
    try:
        figures = compare_logits(reference, candidate)
        if logit_spread(candidate) < SPREAD_MIN:
            raise ProofError("the candidate gives the same logits for every row", "Its weights or scales are broken.")
    except ProofError as raised:
        error = explain_pair((first, second), (reference, candidate), rows, raised)
        cause = f"{error.cause} (reference: {first.path}, candidate: {second.path})"
        raise ProofError(cause, _swapped(said) or error.fix) from raised
    return figures


def _swapped(said: Sequence[str]) -> str | None:
    """What was said about swapped inputs: a better way out than any other."""
    return next((line.removeprefix("WARNING: ") + "." for line in said if "look swapped" in line), None)


def _names(first: Side, second: Side, classes: int, said: list[str]) -> tuple[str, ...]:
    """Names of the classes; a different order in the two files is said aloud."""
    known = [names for side in (first, second) if (names := class_names(side.path)) and len(names) == classes]
    if len(known) == 2 and known[0] != known[1]:
        kind = "in another order" if sorted(known[0]) == sorted(known[1]) else "under other names"
        said.append(f"WARNING: {second.path} has the classes {kind}; logits are compared by position")
    return known[0] if known else tuple(f"class {i}" for i in range(classes))


def _worst(texts: Texts, reference: Logits, candidate: Logits, names: tuple[str, ...]) -> tuple[WorstRow, ...]:
    gaps = np.abs(reference.astype(np.float64) - candidate).max(axis=1)
    return tuple(
        WorstRow(
            texts.numbers[i],
            texts.texts[i],
            float(gaps[i]),
            names[int(reference[i].argmax())],
            names[int(candidate[i].argmax())],
        )
        for i in np.argsort(-gaps, kind="stable")[:WORST_ROWS]
    )

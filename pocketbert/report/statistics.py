"""How sure an accuracy is, and which classes go wrong."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_Z95 = 1.959964


def wilson_interval(share: float, rows: int, z: float = _Z95) -> tuple[float, float]:
    """95 % score interval of a share observed over `rows` rows (Wilson 1927)."""
    if rows < 1:
        raise ValueError("no rows")
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class PairedErrors:
    """Rows on which only one of two models is right: what hides behind two similar accuracies."""

    only_first_right: int
    only_second_right: int
    rows: int


def paired_errors(labels: Sequence[int], first: Sequence[int], second: Sequence[int]) -> PairedErrors:
    """Compare two models' predicted classes with the labels, row by row."""
    pairs = Counter((a == label, b == label) for label, a, b in zip(labels, first, second, strict=True))
    return PairedErrors(pairs[(True, False)], pairs[(False, True)], len(labels))


@dataclass(frozen=True)
class Confusion:
    """The part of a confusion matrix where errors are. Rows are actual classes, columns predicted ones."""

    classes: tuple[int, ...]
    # counts[i][j]: rows of classes[i] predicted as classes[j]; the last column is all other classes.
    counts: tuple[tuple[int, ...], ...]
    # The most frequent (actual, predicted, rows), over all classes.
    pairs: tuple[tuple[int, int, int], ...]
    errors: int
    errors_shown: int

    @property
    def largest_error(self) -> int:
        """The largest count off the diagonal, at least 1."""
        off = [n for i, row in enumerate(self.counts) for j, n in enumerate(row) if i != j]
        return max([1, *off])


def worst_confusion(labels: Sequence[int], predicted: Sequence[int], count: int) -> Confusion:
    """Confusion among the at most `count` classes with the most errors (as actual or as predicted class)."""
    cells = Counter(zip(labels, predicted, strict=True))
    wrong = Counter({pair: n for pair, n in cells.items() if pair[0] != pair[1]})
    involved: Counter[int] = Counter()
    for (actual, guessed), n in wrong.items():
        involved[actual] += n
        involved[guessed] += n
    # Ties by index, so that the same predictions give the same page.
    ranked = sorted(involved, key=lambda c: (-involved[c], c))[:count]
    totals = Counter(labels)
    counts = []
    for actual in ranked:
        row = [cells[actual, guessed] for guessed in ranked]
        counts.append((*row, totals[actual] - sum(row)))
    pairs = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:count]
    return Confusion(
        classes=tuple(ranked),
        counts=tuple(counts),
        pairs=tuple((a, p, n) for (a, p), n in pairs),
        errors=sum(wrong.values()),
        errors_shown=sum(sum(row) - row[i] for i, row in enumerate(counts)),
    )

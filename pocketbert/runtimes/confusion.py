"""Which classes a model takes for which."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.dataset import LabelSet

# More classes than this cannot be read in DVC's confusion plot.
CLASSES_MAX = 30
# Stands for "no label" where a multi-label row misses a label or has one too many.
NONE = "(none)"

Pairs = list[tuple[str, str]]


def confusion_pairs(labels: LabelSet, targets: NDArray[np.number], predicted: NDArray[np.number]) -> Pairs:
    """(actual, predicted) class names: one pair a row, or one a label of a row for a multi-label task."""
    names = labels.names
    if labels.problem_type == "single_label":
        return [(names[int(a)], names[int(p)]) for a, p in zip(targets, predicted, strict=True)]
    pairs: Pairs = []
    for actual, guess in zip(targets > 0, predicted > 0, strict=True):
        for name, is_actual, is_guess in zip(names, actual, guess, strict=True):
            if is_actual or is_guess:
                pairs.append((name if is_actual else NONE, name if is_guess else NONE))
    return pairs


def most_confused(pairs: Pairs, classes_max: int = CLASSES_MAX) -> Pairs:
    """The pairs among the classes that are confused most often, at most `classes_max` classes; all if they fit."""
    if len({name for pair in pairs for name in pair}) <= classes_max:
        return pairs
    chosen: set[str] = set()
    errors = Counter(pair for pair in pairs if pair[0] != pair[1])
    for pair, _ in sorted(errors.items(), key=lambda item: (-item[1], item[0])):
        if len(chosen.union(pair)) <= classes_max:
            chosen.update(pair)
    return [pair for pair in pairs if chosen.issuperset(pair)]


def write_confusion(pairs: Pairs, path: Path) -> None:
    """Write the columns actual, predicted, a row a pair: the input of DVC's confusion template."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["actual", "predicted"])
        writer.writerows(pairs)

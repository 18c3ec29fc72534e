"""Seeded stratified splitting that gives every split rows of every class."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.clean import Row
from pocketbert.errors import DataError


def stratified_split(rows: Sequence[Row], fractions: Sequence[float], seed: int) -> tuple[list[Row], list[list[Row]]]:
    """Draw one part a fraction from `rows`; returns what remains and the parts, each in the order of `rows`.

    A part's size is its fraction of all rows, shared among the classes by largest remainder, at least one row a class.
    A multi-label row counts for the rarest of its classes. Raises DataError for a class of fewer than
    len(fractions) + 1 rows.
    """
    needed = len(fractions) + 1
    counts = Counter(label for row in rows for label in row.labels)
    small = [f"{label!r} has {n}" for label, n in sorted(counts.items()) if n < needed]
    if small:
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        raise DataError(
            f"too few rows to split: class {', '.join(small[:5])}{more}, where each needs {needed}",
            f"Add rows until each class has {needed}, remove the class, or give valid and test files.",
        )
    strata = [min(row.labels, key=lambda label: (counts[label], label), default="") for row in rows]
    names, stratum = np.unique(np.asarray(strata, dtype=object).astype(str), return_inverse=True)
    sizes = np.bincount(stratum, minlength=len(names))
    random = np.random.default_rng(seed)
    members = [random.permutation(np.flatnonzero(stratum == i)) for i in range(len(names))]
    taken = np.zeros(len(names), dtype=np.int64)
    part_of = np.full(len(rows), -1)
    for part, fraction in enumerate(fractions):
        # Later parts and the remainder are each promised a row of every stratum that is large enough.
        reserve = len(fractions) - part
        shares = allocate(sizes, fraction, at_most=sizes - taken - reserve)
        for i, share in enumerate(shares):
            part_of[members[i][taken[i] : taken[i] + share]] = part
        taken += shares
    remainder = [row for row, part in zip(rows, part_of, strict=True) if part == -1]
    parts = [[row for row, p in zip(rows, part_of, strict=True) if p == i] for i in range(len(fractions))]
    return remainder, parts


def allocate(sizes: NDArray[np.int64], fraction: float, at_most: NDArray[np.int64]) -> NDArray[np.int64]:
    """Shares of each stratum, int64 [strata], that sum to about `fraction` of all rows (largest remainder).

    Each share is between 1 and `at_most` (0 where `at_most` allows none).
    """
    exact = sizes * fraction
    limit = np.maximum(at_most, 0)
    shares = np.clip(np.floor(exact).astype(np.int64), np.minimum(1, limit), limit)
    missing = round(float(exact.sum())) - int(shares.sum())
    # Stable, so that equal remainders are served in the order of the class names.
    for i in np.argsort(shares - exact, kind="stable"):
        if missing <= 0:
            break
        if shares[i] < limit[i]:
            shares[i] += 1
            missing -= 1
    return shares

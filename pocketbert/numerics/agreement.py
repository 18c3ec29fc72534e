"""Whether two models decide alike, row by row."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketbert.numerics.logits import logit_spread

# Two faithful float32 evaluations of one model may be 1e-4 of the spread apart, each in its own direction: a row whose
# decision hangs on less than twice that is a tie, which either may break.
TIE_REL = 2e-4


@dataclass(frozen=True)
class Agreement:
    """Share of rows with the same decision: all rows, and those that are no tie in the reference."""

    all_rows: float
    clear_rows: float
    ties: int


def decision_agreement(
    reference: NDArray[np.floating], candidate: NDArray[np.floating], *, multi_label: bool
) -> Agreement:
    """Compare the decisions behind logits [rows, classes].

    Single label: the arg max, its margin the gap to the second class. Multi-label: the set of classes with a
    positive logit (probability over one half), its margin the logit nearest to zero.
    """
    if multi_label:
        same = ((reference > 0) == (candidate > 0)).all(axis=1)
        margin = np.abs(reference).min(axis=1)
    else:
        same = reference.argmax(axis=1) == candidate.argmax(axis=1)
        ordered = np.sort(reference, axis=1)
        margin = ordered[:, -1] - ordered[:, -2]
    clear = margin > TIE_REL * logit_spread(reference)
    return Agreement(
        all_rows=float(same.mean()),
        clear_rows=float(same[clear].mean()) if clear.any() else 1.0,
        ties=int((~clear).sum()),
    )

"""How far the logits of two models are apart, in figures that do not depend on the scale of the logits."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from pocketbert.errors import ProofError

# Below this spread the probes do not tell rows apart, and agreement on them would prove nothing.
SPREAD_MIN = 1e-3


@dataclass(frozen=True)
class LogitComparison:
    """Differences between a reference's and a candidate's logits over the same rows."""

    max_abs_diff: float
    mean_abs_diff: float
    # max_abs_diff / spread
    max_rel_diff: float
    # Share of rows whose arg max is the same.
    agreement: float
    # Standard deviation over rows of each class's logit, averaged over the classes.
    spread: float
    rows: int

    def as_dict(self) -> dict[str, float]:
        """The figures as a flat dictionary."""
        return asdict(self)


def logit_spread(logits: NDArray[np.floating]) -> float:
    """Mean over classes of the standard deviation over rows, of logits [rows, classes].

    A constant model has spread 0 however large its logits are, so it can hide nothing.
    """
    return float(np.std(logits.astype(np.float64), axis=0).mean())


def compare_logits(reference: NDArray[np.floating], candidate: NDArray[np.floating]) -> LogitComparison:
    """Compare logits [rows, classes]; raises ProofError on NaN, on a shape mismatch and on probes of no spread."""
    if reference.shape != candidate.shape:
        raise ProofError(
            f"logits of shape {candidate.shape} instead of {reference.shape}",
            "The two models must have the same classes; export the model again.",
        )
    for name, logits in (("reference", reference), ("candidate", candidate)):
        if not np.isfinite(logits).all():
            row = int(np.argwhere(~np.isfinite(logits))[0][0])
            raise ProofError(
                f"the {name} gives NaN or infinite logits, first at row {row}",
                "Look at mask_value (fp16 overflows beyond 65504) and at the model's weights.",
            )
    spread = logit_spread(reference)
    if spread < SPREAD_MIN:
        raise ProofError(
            f"the reference's logits hardly depend on the input (spread {spread:.1e} over {len(reference)} rows)",
            "Compare trained models on real rows that differ from one another.",
        )
    difference = np.abs(reference.astype(np.float64) - candidate.astype(np.float64))
    agreement = np.mean(reference.argmax(axis=1) == candidate.argmax(axis=1))
    largest = float(difference.max())
    return LogitComparison(
        largest, float(difference.mean()), largest / spread, float(agreement), spread, len(reference)
    )

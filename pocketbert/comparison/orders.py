"""Whether the inputs of a file fit another order better than the one that its names or positions give."""

from collections.abc import Sequence

import numpy as np

from pocketbert.comparison.binding import other_orders
from pocketbert.comparison.rows import Row
from pocketbert.comparison.side import FileSide, Side
from pocketbert.errors import DeviceError

# An order is taken for the right one where it brings the difference below this share of the present one's.
CLEARLY = 0.1


def settle_order(side: FileSide, other: Side, probes: Sequence[Row]) -> list[str]:
    """Try the orders of `side`'s inputs against `other`; adopt a better one only where no name spoke against it.

    Returns what is to be said about it. `probes` need asymmetric masks (and token types where both models have
    them). Orders that do not run (ids beyond the table of token types) are out of the question.
    """
    if len(side.binding.roles) < 2:
        return []
    reference = [other.run(row) for row in probes]
    now = _distance(side, reference, probes, side.binding.roles)
    if now == 0.0:
        return []
    trials = {roles: _distance(side, reference, probes, roles) for roles in other_orders(side.binding)}
    best = min(trials, key=lambda roles: trials[roles])
    if not trials[best] <= CLEARLY * now:
        fit = f"{side.path.name}: of {1 + len(trials)} orders of its inputs the one of their positions fits best"
        return [fit] if side.binding.guessed else []
    order = ", ".join(best)
    gain = f"mean difference on rows with asymmetric masks {trials[best]:.3g} instead of {now:.3g}"
    if side.binding.guessed:
        side.reorder(best)
        return [f"{side.path.name}: its inputs are taken as {order} instead ({gain})"]
    stated = ", ".join(spec.name for spec in side.inputs)
    return [f"WARNING: the inputs of {side.path.name} ({stated}) look swapped: they fit as {order} ({gain})"]


def _distance(side: FileSide, reference: Sequence[np.ndarray], probes: Sequence[Row], roles: tuple[str, ...]) -> float:
    """Mean |difference| from the reference's logits; infinite where this order does not run."""
    try:
        outputs = [side.run(row, roles) for row in probes]
    except DeviceError:
        return float("inf")
    if any(a.shape != b.shape for a, b in zip(outputs, reference, strict=True)):
        return float("inf")
    distance = float(np.mean([np.abs(a - b).mean() for a, b in zip(outputs, reference, strict=True)]))
    return distance if np.isfinite(distance) else float("inf")

"""Attention scores and the mask added to them: whether the mask hides padding, and whether fp16 can hold both."""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pocketbert.artifacts import Artifact
from pocketbert.errors import ProofError
from pocketbert.numerics.dump import Array, open_dump, probe_rows, read_graph
from pocketbert.numerics.half import HALF_MAX
from pocketbert.numerics.places import Places
from pocketbert.numerics.probes import Probes

# Share of a query's attention that padding may get: what float32 cannot tell from 0.
LEAK_MAX = 1e-6
# With this much between mask and scores, no more than LEAK_MAX leaks at 1,000 tokens.
MARGIN_MIN = math.log(1e3 / LEAK_MAX)
# Rows run of each kind of probes.
ROWS_PER_KIND = 2

_log = logging.getLogger("pocketbert")


@dataclass(frozen=True)
class AttentionScan:
    """Scores before the mask over all layers and rows; `mask_value` is None where the file adds no mask to them."""

    score_max: float
    layer: str
    row: str
    mask_value: float | None
    # Largest share of a query's attention that goes to masked keys, where it has others.
    leak: float
    # The key of params.yaml that sets the mask.
    parameter: str

    @property
    def margin(self) -> float | None:
        """How far the mask is below any pair of scores: leak <= S exp(-margin)."""
        return None if self.mask_value is None else -self.mask_value - 2 * self.score_max

    @property
    def fits_half(self) -> bool:
        """Whether the sum of mask and score can be held in fp16."""
        return self.mask_value is None or self.score_max - self.mask_value <= HALF_MAX

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"margin": self.margin, "fits_half": self.fits_half}


def scan_attention(artifact: Artifact, probes: Probes) -> AttentionScan | None:
    """Run an exported file on some probes; None where it holds no attention that is recognised.

    Raises DeviceError and CheckpointError.
    """
    path = artifact.model_path
    triples = Places(read_graph(path).graph, ()).scores()
    if not triples:
        return None
    dump = open_dump(path, {value for triple in triples for value in triple if value})
    largest, layer, row, leak, mask_value = 0.0, "", "", 0.0, None
    for kind, arrays in probe_rows(dump, probes, ROWS_PER_KIND):
        seen = dict(dump.run(arrays))
        for number, (scores, mask, probabilities) in enumerate(triples):
            size = float(np.abs(seen[scores]).max())
            if not size <= largest:
                largest, layer, row = size, f"layer {number}", kind
            if mask in seen:
                lowest = float(seen[mask].min())
                mask_value = lowest if mask_value is None else min(mask_value, lowest)
                leak = max(leak, _leak(seen[mask], seen[probabilities], lowest))
    return AttentionScan(largest, layer, row, mask_value, leak, f"export_{artifact.card.format}.mask_value")


def _leak(mask: Array, probabilities: Array, lowest: float) -> float:
    """Largest sum over masked keys of a query's probabilities; 0 where no key or every key is masked."""
    masked = np.broadcast_to(mask <= lowest / 2, probabilities.shape) if lowest < 0 else np.zeros(1, dtype=bool)
    if not masked.any():
        return 0.0
    queries = ~masked.all(axis=-1)
    leaked = np.where(masked, probabilities, 0.0).sum(axis=-1)[queries]
    return float(leaked.max()) if leaked.size else 0.0


def judge_attention(name: str, figures: Mapping[str, Any] | None) -> None:
    """Raise ProofError where padding is attended to, warn where the mask is too near or too far for fp16.

    `figures` are those of `AttentionScan.as_dict`.
    """
    if figures is None or figures["mask_value"] is None:
        return
    mask, parameter = f"the mask of {figures['mask_value']:.4g}", figures["parameter"]
    seen = f"the largest |attention score| is {figures['score_max']:.4g} ({figures['layer']}, a {figures['row']} row)"
    if figures["leak"] > LEAK_MAX:
        raise ProofError(
            f"{name}: {mask} does not hide padding: {seen}, and up to {figures['leak']:.2g} of the attention goes "
            "to masked positions",
            f"Set {parameter} to -1e4.",
        )
    if not figures["fits_half"]:
        _log.warning("%s: %s overflows fp16 where a score is added: %s; set %s to -1e4", name, mask, seen, parameter)
    elif figures["margin"] < MARGIN_MIN:
        _log.warning("%s: %s is not far beyond the scores: %s; set %s to -1e4", name, mask, seen, parameter)

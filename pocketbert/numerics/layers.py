"""Hidden states of two models, layer by layer: how far apart each layer is, and where they part."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.tokenize import Batch
from pocketbert.numerics.logits import logit_spread

Array = NDArray[np.float32]
# Layer name -> its output for one row: [tokens, width] of an encoder layer, [1, width] from the pooling on.
States = Mapping[str, Array]
Layer = TypeVar("Layer")
EMBEDDINGS, POOLING, LOGITS = "embeddings", "pooling", "logits"
# Relative to a layer's spread: what float32 arithmetic in another order stays well within.
FLOAT32_LIMIT = 1e-4


class StateSource(Protocol):
    """A model whose layers' outputs can be read."""

    @property
    def places(self) -> Mapping[str, str]:
        """Which value of its file each layer's output is; empty where the model is no file."""
        ...

    def states(self, row: Batch) -> States:
        """The layers' outputs for a batch of one row, in the order of the layers; raises PocketBertError."""
        ...


@dataclass(frozen=True)
class LayerFigures:
    """One layer of two models over the same rows; differences over the tokens that are not masked."""

    layer: str
    max_abs_diff: float
    mean_abs_diff: float
    # max_abs_diff / spread; infinite where it is no number.
    rel_diff: float
    # Mean over the tokens of the cosine between the two models' vectors.
    cosine: float
    # Standard deviation over tokens of each feature of the reference, averaged over the features.
    spread: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where a figure is no number."""
        return {k: v if isinstance(v, str) or math.isfinite(v) else None for k, v in asdict(self).items()}


def name_layers(encoder: Sequence[Layer], head: Sequence[Layer]) -> dict[str, Layer]:
    """Names for the outputs of embeddings and encoder layers, and of pooling and the head's linear layers.

    A linear layer of the head is taken with its activation; the last one gives the logits.
    """
    hidden = {f"layer.{i - 1}" if i else EMBEDDINGS: layer for i, layer in enumerate(encoder)}
    names = [POOLING, *(f"head.linear_{i}" for i in range(len(head) - 2)), LOGITS]
    return {**hidden, **dict(zip(names[-len(head) :], head, strict=True))}


def compare_states(
    reference: Sequence[States], candidate: Sequence[States], masks: Sequence[NDArray[np.integer]]
) -> list[LayerFigures]:
    """Compare the layers that both models have, row by row; `masks` are int [tokens], 1 for a token.

    Masked tokens are left out: their states reach no logit, and models may treat them differently.
    """
    figures = []
    for layer, first in reference[0].items():
        other = candidate[0].get(layer)
        if other is None or other.shape[-1] != first.shape[-1]:
            continue
        pairs = [
            _tokens(a[layer], b[layer], mask.astype(bool))
            for a, b, mask in zip(reference, candidate, masks, strict=True)
        ]
        one, two = (np.concatenate(side).astype(np.float64) for side in zip(*pairs, strict=True))
        figures.append(_figures(layer, one, two))
    return figures


def first_divergence(figures: Sequence[LayerFigures], limit: float) -> LayerFigures | None:
    """The first layer whose relative difference is beyond `limit`; None where all are within."""
    return next((layer for layer in figures if not layer.rel_diff <= limit), None)


def worst_layer(figures: Sequence[LayerFigures]) -> LayerFigures:
    """The layer of the largest relative difference."""
    return max(figures, key=lambda layer: layer.rel_diff)


def _tokens(one: Array, two: Array, mask: NDArray[np.bool_]) -> tuple[Array, Array]:
    """The states of tokens that are not masked, without a model's own padding; one state a row stays whole."""
    return (one, two) if len(one) == 1 != len(mask) else (one[: len(mask)][mask], two[: len(mask)][mask])


def _figures(layer: str, one: NDArray[np.float64], two: NDArray[np.float64]) -> LayerFigures:
    difference = np.abs(one - two)
    largest, spread = float(difference.max(initial=0.0)), logit_spread(one)
    if not math.isfinite(largest):
        relative = math.inf
    else:
        relative = largest / spread if spread > 0 else (math.inf if largest else 0.0)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    known = lengths > 0
    cosines = (one * two).sum(axis=1)[known] / lengths[known]
    cosine = float(cosines.mean()) if known.any() else 1.0
    return LayerFigures(layer, largest, float(difference.mean()), relative, cosine, spread)

"""The per-layer part of `validate`: each export against the classifier in torch, on a handful of its probes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.data.tokenize import Batch
from pocketbert.errors import DeviceError, ProofError
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.numerics.layers import (
    LayerFigures,
    StateSource,
    compare_states,
    first_divergence,
    worst_layer,
)
from pocketbert.numerics.layers_files import ArtifactStates
from pocketbert.numerics.layers_torch import TorchStates
from pocketbert.numerics.probes import Probes
from pocketbert.stage import Metrics

# Written beside an export by the stage that made it, where it compared layers itself.
LAYERS_FILE = "layers.json"


@dataclass(frozen=True)
class LayerProof:
    """One artifact's layers; `layers` is empty where `unknown` says why they cannot be told."""

    layers: list[LayerFigures]
    places: dict[str, str]
    rows: list[str]
    limit: float
    unknown: str | None = None

    @property
    def first_divergence(self) -> LayerFigures | None:
        """The first layer beyond the limit."""
        return first_divergence(self.layers, self.limit)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        first = self.first_divergence
        return {
            "rows": self.rows,
            "unknown": self.unknown,
            "first_divergence": first and first.layer,
            "worst": worst_layer(self.layers).layer if self.layers else None,
            "layers": [layer.as_dict() | {"place": self.places.get(layer.layer)} for layer in self.layers],
        }

    def headline(self) -> Metrics:
        """The figures for metrics/validate.json."""
        if not self.layers:
            return {"layers_compared": 0, "layer_rel_diff_max": None}
        worst = worst_layer(self.layers).as_dict()
        return {"layers_compared": len(self.layers), "layer_rel_diff_max": worst["rel_diff"]}

    def verdict(self) -> str:
        """Where the two part, as half a sentence."""
        if self.unknown is not None:
            return f"its layers cannot be compared: {self.unknown}"
        first = self.first_divergence
        if first is not None:
            return f"the first layer that diverges is {first.layer}, {first.rel_diff:.3g} of its own spread"
        worst = worst_layer(self.layers)
        furthest = f"the furthest is {worst.layer} at {worst.rel_diff:.3g}"
        return f"no layer is beyond {self.limit:.3g} of its own spread, {furthest}"


def write_layers(proofs: Sequence[tuple[Artifact, LayerProof]], path: Path) -> None:
    """Write layers.json: each artifact's layers by name, and those that the export wrote of its TensorFlow graph."""
    document: dict[str, Any] = {}
    for artifact, proof in proofs:
        exported = artifact.folder / LAYERS_FILE
        if exported.is_file():
            document["tensorflow"] = json.loads(exported.read_text(encoding="utf-8"))
        document[artifact.name] = {"md5": artifact.md5(), **proof.as_dict()}
    limits = {proof.limit for _, proof in proofs}
    path.write_text(json.dumps({"limit": max(limits), "artifacts": document}, indent=1) + "\n", encoding="utf-8")


def prove_layers(
    artifact: Artifact,
    model: PocketBertClassifier,
    probes: Probes,
    row_diffs: NDArray[np.floating],
    limit: float,
) -> LayerProof:
    """Compare the layers of `artifact` on the probe of each kind whose logits differ most (`row_diffs` [rows]).

    Rows are run alone, padded to the static length or to their own.
    """
    chosen = _worst_of_each_kind(probes.kinds, row_diffs)
    try:
        return prove_source(
            ArtifactStates(artifact.model_path), model, probes, chosen, artifact.card.sequence_length, limit
        )
    except (ProofError, DeviceError) as error:
        return LayerProof([], {}, [probes.kinds[i] for i in chosen], limit, unknown=error.cause)


def prove_source(
    source: StateSource,
    model: PocketBertClassifier,
    probes: Probes,
    chosen: Sequence[int],
    length: int | None,
    limit: float,
) -> LayerProof:
    """Compare the layers of `source` with torch's on the `chosen` probes, padded to `length` or to their own."""
    rows = [_row(probes, index, length) for index in chosen]
    kinds = [probes.kinds[index] for index in chosen]
    torch_states = TorchStates(model)
    reference, candidate = ([states(row) for row in rows] for states in (torch_states.states, source.states))
    if set(reference[0]) != set(candidate[0]):
        unknown = f"torch has {', '.join(reference[0])}; the file has {', '.join(candidate[0])}"
        return LayerProof([], {}, kinds, limit, unknown)
    layers = compare_states(reference, candidate, [row["attention_mask"][0] for row in rows])
    return LayerProof(layers, dict(source.places), kinds, limit)


def _worst_of_each_kind(kinds: Sequence[str], row_diffs: NDArray[np.floating]) -> list[int]:
    """The row of the largest difference of each kind, and a second real one (NaN counts as largest)."""
    ranked = np.argsort(-np.nan_to_num(row_diffs, nan=np.inf, posinf=np.inf), kind="stable")
    of_kind = {kind: [int(i) for i in ranked if kinds[i] == kind] for kind in dict.fromkeys(kinds)}
    return [index for kind, found in of_kind.items() for index in found[: 2 if kind == "real" else 1]]


def _row(probes: Probes, index: int, length: int | None) -> Batch:
    """A batch of one probe, no wider than its tokens or exactly `length` wide; two columns at least."""
    inputs = probes.inputs if length is None else probes.padded(length)
    width = length or max(2, int(probes.lengths()[index]))
    return {name: rows[index : index + 1, :width] for name, rows in inputs.items()}

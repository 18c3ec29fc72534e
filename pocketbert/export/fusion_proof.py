"""The proof of each fusion: the graph with it computes what the graph without it computes.

Two figures a fusion, both largest |logit difference| over the spread of the logits: in float64, where an algebraic
mistake shows at any size and rounding does not, and in float32, in which the file computes.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pocketbert.data.tokenize import Batch, TextEncoder
from pocketbert.errors import ProofError
from pocketbert.export.tf_classifier import build_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.numerics.logits import SPREAD_MIN, logit_spread
from pocketbert.numerics.probes import make_probes

FLOAT64_LIMIT, FLOAT32_LIMIT = 1e-9, 1e-5
# The algebra does not depend on the length; the whole length is proven by `validate`.
_LENGTH = 16


@dataclass(frozen=True)
class FusionProof:
    """One fusion against the graph without it, the fusions before it in both."""

    name: str
    float64_diff: float
    float32_diff: float
    # Tensors that it made or changed, and that are gone.
    changed: int
    gone: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Graph:
    logits: dict[tf.DType, NDArray[np.float64]]
    tensors: dict[str, tuple[str, ...]]


def prove_fusions(
    model: PocketBertClassifier, mask_value: float, fuse: Sequence[str], rows: Batch
) -> tuple[list[FusionProof], float]:
    """Prove each fusion that changes the model, in order, and all together: (proofs, float32 difference of all).

    `rows` are int [n, S] with S no longer than the model allows. Raises ProofError that names the fusion.
    """
    unfused = previous = _run(model, mask_value, (), rows)
    proofs = []
    for count, name in enumerate(fuse, 1):
        fused = _run(model, mask_value, fuse[:count], rows, previous)
        if fused is previous:
            continue
        exact, single = (_difference(previous.logits[d], fused.logits[d]) for d in (tf.float64, tf.float32))
        changed = sum(previous.tensors.get(tensor) != steps for tensor, steps in fused.tensors.items())
        gone = len(set(previous.tensors) - set(fused.tensors))
        proofs.append(FusionProof(name, exact, single, changed, gone))
        _judge(proofs[-1])
        previous = fused
    return proofs, _difference(unfused.logits[tf.float32], previous.logits[tf.float32])


def proof_rows(model: PocketBertClassifier, encoder: TextEncoder, texts: Sequence[str], max_length: int) -> Batch:
    """A row of each kind of probe made of `texts`, of at most 16 tokens."""
    length = min(max_length, _LENGTH)
    probes = make_probes(encoder, texts, 2, length, seed=0, token_types=model.uses_token_types)
    first_of_kind = [probes.kinds.index(kind) for kind in dict.fromkeys(probes.kinds)]
    return {name: values[first_of_kind] for name, values in probes.padded(length).items()}


def _judge(proof: FusionProof) -> None:
    for figure, limit, kind in (
        (proof.float64_diff, FLOAT64_LIMIT, "float64"),
        (proof.float32_diff, FLOAT32_LIMIT, "float32"),
    ):
        if not figure <= limit:
            raise ProofError(
                f"the fusion {proof.name} changes the logits by {figure:.2g} of their spread in {kind} "
                f"(at most {limit:.0e})",
                f"Take {proof.name} out of export_tflite.fuse, and please report this model.",
            )


def _run(
    model: PocketBertClassifier, mask_value: float, fuse: Collection[str], rows: Batch, same: _Graph | None = None
) -> _Graph:
    """Logits of the graph in both precisions; `same` itself where its tensors are made by the same steps."""
    logits = {}
    length = rows["input_ids"].shape[1]
    for dtype in (tf.float64, tf.float32):
        module, transplant = build_classifier(model, length, mask_value, "delegate", fuse, dtype)
        tensors = {name: transplant.weights.steps(name) for name in transplant.weights.names()}
        if same is not None and tensors == same.tensors:
            return same
        # Torch's own parameters, bit by bit, are what every fusion is measured against.
        transplant.prove(module.variables)
        logits[dtype] = np.concatenate([_row(module, rows, i) for i in range(len(rows["input_ids"]))])
    return _Graph(logits, tensors)


def _row(module: Any, rows: Batch, index: int) -> NDArray[np.float64]:
    inputs = {name: tf.constant(rows[name][index : index + 1], tf.int32) for name in module.input_specs}
    return np.asarray(module(**inputs), np.float64)


def _difference(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    return float(np.abs(one - two).max()) / max(logit_spread(one), SPREAD_MIN)

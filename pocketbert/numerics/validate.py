"""The proof that exported files are the classifier: the same logits on hard rows, the same layers, the same tensors."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact, read_artifact, read_artifacts
from pocketbert.data.tokenize import Batch, TextEncoder
from pocketbert.errors import ProofError
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.numerics.agreement import decision_agreement
from pocketbert.numerics.attention import judge_attention, scan_attention
from pocketbert.numerics.constants import read_constants
from pocketbert.numerics.fusion_plan import fuse_weights
from pocketbert.numerics.half_proof import explain_nonfinite
from pocketbert.numerics.layers_proof import LayerProof, prove_layers, write_layers
from pocketbert.numerics.logits import compare_logits
from pocketbert.numerics.probes import Probes, make_probes
from pocketbert.numerics.tensors import compare_tensors
from pocketbert.params import ValidateParams
from pocketbert.runtimes.engines import open_runtime
from pocketbert.stage import Metrics

Logits = NDArray[np.float32]
CHUNK_ROWS = 32


def validate_exports(
    params: ValidateParams, classifier: Path, exports: list[Path], texts: list[str], folder: Path
) -> Metrics:
    """Compare each export with `classifier`; write validate.json and layers.json, return the headline by artifact.

    Raises ProofError that names the artifact, the figure, its limit and the first layer that diverges.
    """
    model, artifacts = load_classifier(classifier), read_artifacts(exports)
    length = min(artifact.card.max_length for artifact in [read_artifact(classifier), *artifacts])
    probes = make_probes(
        TextEncoder(classifier), texts, params.rows, length, seed=params.seed, token_types=model.uses_token_types
    )
    compared = [(artifact, *_compare(artifact, model, probes, params.logit_rel_diff_max)) for artifact in artifacts]
    results = {artifact.name: figures for artifact, figures, _ in compared}
    folder.mkdir(parents=True, exist_ok=True)
    write_layers([(artifact, layers) for artifact, _, layers in compared], folder / "layers.json")
    document = {"params": params.model_dump(), "probes": _count(probes.kinds), "artifacts": results}
    (folder / "validate.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for artifact, figures, layers in compared:
        _judge(artifact.name, figures, layers, params)
    return {artifact.name: {**_headline(figures), **layers.headline()} for artifact, figures, layers in compared}


def _compare(
    artifact: Artifact, model: PocketBertClassifier, probes: Probes, limit: float
) -> tuple[dict[str, Any], LayerProof]:
    """All figures of one artifact; raises ProofError on NaN and on probes that prove nothing."""
    reference, candidate = _run(artifact, model, probes)
    row_diffs = np.abs(reference.astype(np.float64) - candidate).max(axis=1)
    layers = prove_layers(artifact, model, probes, row_diffs, limit)
    try:
        logits = compare_logits(reference, candidate)
    except ProofError as error:
        told = error if np.isfinite(candidate).all() else explain_nonfinite(artifact, probes, error)
        raise ProofError(f"{artifact.name}: {told.cause} ({layers.verdict()})", told.fix) from error
    multi_label = model.config.problem_type == "multi_label_classification"
    agreement = decision_agreement(reference, candidate, multi_label=multi_label)
    worst = int(row_diffs.argmax())
    tensors = compare_tensors(
        _expected_tensors(artifact, model),
        read_constants(artifact),
        model.encoder.config,
        artifact.card.sequence_length,
    )
    attention = scan_attention(artifact, probes)
    quantiles = {f"p{round(100 * q)}": float(np.quantile(row_diffs, q)) for q in (0.5, 0.9, 0.99, 1.0)}
    figures = {
        "md5": artifact.md5(),
        "logits": {**logits.as_dict(), "agreement": agreement.all_rows},
        "agreement_without_ties": agreement.clear_rows,
        "ties": agreement.ties,
        "row_diff_quantiles": quantiles,
        "row_diff_max_by_kind": _by_kind(row_diffs, probes.kinds),
        "worst_row": {"kind": probes.kinds[worst], "diff": float(row_diffs[worst])},
        "tensors": tensors.as_dict(),
        "attention": attention.as_dict() if attention else None,
    }
    return figures, layers


def _expected_tensors(artifact: Artifact, model: PocketBertClassifier) -> dict[str, NDArray[np.float32]]:
    """What the file must hold: torch's parameters, or what the fusions on its card make of them, computed again."""
    parameters = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    card = artifact.card
    if card.graph_profile is None or card.sequence_length is None:
        return parameters
    host = card.graph_profile == "embeddings"
    weights = fuse_weights(parameters, model.encoder.config, card.fused, length=card.sequence_length, host_lookup=host)
    return weights.values()


def _run(artifact: Artifact, model: PocketBertClassifier, probes: Probes) -> tuple[Logits, Logits]:
    """Logits of torch and of the artifact at the same shapes, in the probes' order.

    A dynamic file is run at several: rows of like length together, no wider than the longest of them.
    """
    runtime = open_runtime(artifact, threads=1)
    order = np.argsort(probes.lengths(), kind="stable")
    fixed = artifact.card.sequence_length
    inputs = probes.inputs if fixed is None else probes.padded(fixed)
    reference, candidate = [], []
    try:
        for start in range(0, len(order), CHUNK_ROWS):
            chunk = order[start : start + CHUNK_ROWS]
            width = fixed or int(probes.lengths()[chunk].max())
            batch = {name: rows[chunk, :width] for name, rows in inputs.items()}
            reference.append(_torch_logits(model, batch))
            candidate.append(runtime.run(batch))
    finally:
        runtime.close()
    back = np.argsort(order, kind="stable")
    return np.concatenate(reference)[back], np.concatenate(candidate)[back]


def _torch_logits(model: PocketBertClassifier, batch: Batch) -> Logits:
    tensors = {name: torch.from_numpy(rows.astype(np.int64)) for name, rows in batch.items()}
    with torch.inference_mode():
        logits: Logits = model(**tensors).logits.float().numpy()
    return logits


def _judge(name: str, result: dict[str, Any], layers: LayerProof, params: ValidateParams) -> None:
    """Raise ProofError for the first figure that is beyond its limit."""
    logits, tensors, worst = result["logits"], result["tensors"], result["worst_row"]
    evidence = (
        f"max |logit difference| {logits['max_abs_diff']:.3g} = {logits['max_rel_diff']:.3g} of the spread, worst on a "
        f"{worst['kind']!r} row; agreement {logits['agreement']:.4f} with {result['ties']} ties; "
        f"{tensors['equal']} of {tensors['compared']} tensors equal; {layers.verdict()}"
    )
    if tensors["missing"]:
        raise ProofError(
            f"{name}: {len(tensors['missing'])} tensors of the classifier are not in the file, the first "
            f"{', '.join(tensors['missing'][:4])} ({evidence})",
            "Export again from this classifier; if the file is fresh, look at the mapping in pocketbert/export.",
        )
    if tensors["unknown"]:
        raise ProofError(
            f"{name}: the file holds constants that are no tensor of the classifier, the first "
            f"{', '.join(tensors['unknown'][:4])} ({evidence})",
            "Export again from this classifier; a file changed by hand is not shipped.",
        )
    judge_attention(name, result["attention"])
    if logits["max_rel_diff"] > params.logit_rel_diff_max:
        raise ProofError(
            f"{name}: logit_rel_diff {logits['max_rel_diff']:.3g} is over validate.logit_rel_diff_max = "
            f"{params.logit_rel_diff_max:.3g} ({evidence})",
            _where_to_look(worst["kind"]),
        )
    if result["agreement_without_ties"] < params.agreement_min:
        raise ProofError(
            f"{name}: agreement {result['agreement_without_ties']:.4f} on rows that are no ties is under "
            f"validate.agreement_min = {params.agreement_min:.4f} ({evidence})",
            _where_to_look(worst["kind"]),
        )


def _where_to_look(kind: str) -> str:
    places = {
        "holes": "Look at the attention mask: its input's name, mask_value, the pooling.",
        "shortened": "Look at the attention mask: its input's name, mask_value, the pooling.",
        "segments": "Look at token_type_ids: its input's name and its embedding.",
        "padding": "Look at the pooling of a row without tokens and at the head.",
    }
    return places.get(kind, "Look at the activations and norms of the first layer that diverges.")


def _headline(result: dict[str, Any]) -> Metrics:
    logits, tensors = result["logits"], result["tensors"]
    return {
        "logit_max_abs_diff": logits["max_abs_diff"],
        "logit_mean_abs_diff": logits["mean_abs_diff"],
        "logit_rel_diff": logits["max_rel_diff"],
        "agreement": logits["agreement"],
        "rows": logits["rows"],
        "tensors_compared": tensors["compared"],
        "tensors_equal": tensors["equal"],
        "attention_score_max": result["attention"]["score_max"] if result["attention"] else None,
    }


def _count(kinds: Sequence[str]) -> dict[str, int]:
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def _by_kind(row_diffs: NDArray[np.float64], kinds: Sequence[str]) -> dict[str, float]:
    named = np.array(kinds)
    return {kind: float(row_diffs[named == kind].max()) for kind in dict.fromkeys(kinds)}

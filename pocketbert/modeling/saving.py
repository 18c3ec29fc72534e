"""Saving a classifier as an artifact, and the proof that what was saved is what was trained."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from pocketbert.artifacts import Artifact, ArtifactCard, write_artifact
from pocketbert.data.dataset import LabelSet
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ProofError
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.modeling.disk import storage_errors
from pocketbert.modeling.weights import SAFE_WEIGHTS


def save_classifier(
    model: PocketBertClassifier, name: str, labels: LabelSet, encoder: TextEncoder, max_length: int, folder: Path
) -> Artifact:
    """Write model, tokenizer, labels and artifact card into `folder`; raises OSError where the disk is full."""
    folder.mkdir(parents=True, exist_ok=True)
    with storage_errors(folder):
        # One file, however large: the artifact's identity is its hash.
        model.save_pretrained(str(folder), safe_serialization=True, max_shard_size="1TB")
    card = ArtifactCard(name=name, format="torch", model_file=SAFE_WEIGHTS, max_length=max_length)
    return write_artifact(folder, card, labels, encoder)


def prove_reload(model: PocketBertClassifier, folder: Path, batch: dict[str, Tensor]) -> None:
    """Reload `folder` as transformers' users do; raises ProofError unless each tensor and all logits are equal."""
    reloaded = AutoModelForSequenceClassification.from_pretrained(str(folder), local_files_only=True).to(model.device)
    ours, theirs = model.state_dict(), reloaded.state_dict()
    for name in sorted({*ours, *theirs}):
        if name not in ours or name not in theirs or not torch.equal(ours[name], theirs[name]):
            raise ProofError(
                f"the tensor {name} in {folder} is not the one that was trained",
                "Build it again; if it happens again, please report it.",
            )
    with torch.no_grad():
        expected, got = model.eval()(**batch).logits, reloaded.eval()(**batch).logits
    difference = float((expected - got).abs().max())
    # Not NaN <= 0 either; the same tensors, code and shapes give the same sums.
    if not difference <= 1e-6 * max(1.0, float(expected.abs().max())):
        raise ProofError(
            f"the classifier reloaded from {folder} gives other logits (difference {difference:.1e})",
            "Its config.json must carry pooling and activation; build it again.",
        )

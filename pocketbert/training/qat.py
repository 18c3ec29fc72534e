"""Quantization-aware training: the classifier learns to live with the rounding of static int8."""

import logging
from pathlib import Path

import torch
from torch import Tensor
from transformers import set_seed

from pocketbert.artifacts import read_artifact
from pocketbert.data.dataset import LabelSet, Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import CheckpointError
from pocketbert.modeling.assemble import check_fit, label_names
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.modeling.inference import pad_rows
from pocketbert.modeling.saving import prove_reload, save_classifier
from pocketbert.params import DistillParams, QatParams
from pocketbert.stage import Metrics
from pocketbert.training.distill import Distillation
from pocketbert.training.loop.batches import TrainingRows, tokenize_rows
from pocketbert.training.loop.trainer import train
from pocketbert.training.loop.validation import Validation
from pocketbert.training.qat_modules import insert_fake_quantization
from pocketbert.training.soft_labels import SoftLabels

logger = logging.getLogger("pocketbert")

_CALIBRATION_ROWS = 1024
_PROOF_ROWS = 32


def train_quantized(
    params: QatParams,
    labels: LabelSet,
    finetuned: Path,
    soft: SoftLabels,
    train_split: Split,
    valid: Split,
    output: Path,
    plots: Path,
) -> Metrics:
    """Train the classifier in `finetuned` under fake quantization and write the artifact `student`, in plain float.

    The loss is that of distillation, soft labels and hard ones. The classifier as it came, fake-quantized, is
    epoch 0: with `keep_best` nothing that static int8 makes worse on the validation split is shipped.
    """
    set_seed(params.seed)
    read_artifact(finetuned)
    encoder, model = TextEncoder(finetuned), load_classifier(finetuned)
    if label_names(model.config) != labels.names or soft.card.classes != len(labels):
        raise CheckpointError(f"{finetuned} was trained for other labels", "Run `dvc repro finetune`.")
    check_fit(model, encoder, params.max_length)
    rows = tokenize_rows(train_split, encoder, params.max_length, soft.unlabelled_texts)
    validation = Validation.of(valid, encoder, params)
    _, float_before = validation.score(model)
    insert_fake_quantization(model, _calibration_batches(rows, params))
    _, int8_before = validation.score(model)
    logger.info("validation accuracy %.4f in float, %.4f under fake quantization", float_before, int8_before)
    objective = Distillation(DistillParams(temperature=params.temperature, alpha=params.alpha), soft)
    outcome = train(model, objective, rows, validation, params, plots, score_first=True)
    plain = _without_fake_quantization(model, finetuned)
    _, float_after = validation.score(plain)
    artifact = save_classifier(plain, "student", labels, encoder, params.max_length, output)
    prove_reload(plain, output, pad_rows(validation.ids[:_PROOF_ROWS], encoder.pad_id))
    return {
        "enabled": True,
        **outcome.metrics(),
        "valid_accuracy_before": int8_before,
        "float_valid_accuracy": float_after,
        "float_valid_accuracy_before": float_before,
        "reload_proven": True,
        "parameters": plain.num_parameters(),
        "size_bytes": artifact.size_bytes,
    }


def _calibration_batches(rows: TrainingRows, params: QatParams) -> list[dict[str, Tensor]]:
    """Ids and masks of some training rows, chosen by the seed."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(params.seed))[:_CALIBRATION_ROWS].tolist()
    order.sort(key=lambda index: len(rows.ids[index]))
    return [
        pad_rows([rows.ids[index] for index in order[start : start + params.batch_size]], rows.pad_id)
        for start in range(0, len(order), params.batch_size)
    ]


def _without_fake_quantization(model: PocketBertClassifier, source: Path) -> PocketBertClassifier:
    """The plain classifier with the trained parameters; not one may be missing."""
    plain, trained = load_classifier(source), model.state_dict()
    plain.load_state_dict({name: trained[name] for name in plain.state_dict()})
    return plain

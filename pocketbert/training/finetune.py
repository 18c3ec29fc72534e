"""Hard-label tuning of the student's classifier head."""

import logging
from pathlib import Path

from transformers import set_seed

from pocketbert.artifacts import read_artifact
from pocketbert.data.dataset import LabelSet, Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import CheckpointError
from pocketbert.modeling.assemble import check_fit, label_names, new_classifier
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.modeling.inference import pad_rows
from pocketbert.modeling.saving import prove_reload, save_classifier
from pocketbert.modeling.students import copy_head
from pocketbert.params import FinetuneParams
from pocketbert.stage import Metrics
from pocketbert.training.loop.batches import tokenize_rows
from pocketbert.training.loop.objective import HardLabels
from pocketbert.training.loop.trainer import train
from pocketbert.training.loop.validation import Validation

logger = logging.getLogger("pocketbert")

_PROOF_ROWS = 32


def finetune_head(
    params: FinetuneParams, labels: LabelSet, student: Path, train_split: Split, valid: Split, output: Path, plots: Path
) -> Metrics:
    """Tune the student in `student` and write the artifact `student`, proven equal after reload.

    The student as it came is epoch 0: with `keep_best` nothing worse on the validation split is shipped.
    Raises ProofError where a reload gives another head or other logits.
    """
    set_seed(params.seed)
    read_artifact(student)
    encoder = TextEncoder(student)
    model, head_kept = _open_student(params, labels, student)
    check_fit(model, encoder, params.max_length)
    if params.freeze_encoder:
        model.freeze_encoder()
    validation = Validation.of(valid, encoder, params)
    rows = tokenize_rows(train_split, encoder, params.max_length)
    objective = HardLabels(params.label_smoothing)
    outcome = train(model, objective, rows, validation, params, plots, score_first=True)
    artifact = save_classifier(model, "student", labels, encoder, params.max_length, output)
    probe = pad_rows(validation.ids[:_PROOF_ROWS], encoder.pad_id)
    prove_reload(model, output, {name: tensor.to(model.device) for name, tensor in probe.items()})
    return {
        **outcome.metrics(),
        "head_kept": head_kept,
        "reload_proven": True,
        "parameters": model.num_parameters(),
        "size_bytes": artifact.size_bytes,
    }


def _open_student(params: FinetuneParams, labels: LabelSet, folder: Path) -> tuple[PocketBertClassifier, bool]:
    """The student under the head that params.yaml asks for, and whether that is the student's own."""
    source = load_classifier(folder)
    if label_names(source.config) != labels.names:
        raise CheckpointError(f"{folder} was trained for other labels", "Run `dvc repro distill`.")
    model = new_classifier(source.config.encoder, source.config.pooling, params.head, labels)
    model.encoder.load_state_dict(source.encoder.state_dict())
    return model, copy_head(source, model)

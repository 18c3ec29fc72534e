"""Fine-tuning of the teacher."""

import logging
from pathlib import Path

from transformers import set_seed

from pocketbert.data.dataset import LabelSet, Split
from pocketbert.modeling.assemble import check_fit, save_tokenizer
from pocketbert.modeling.checkpoints import resolve_checkpoint
from pocketbert.modeling.saving import save_classifier
from pocketbert.modeling.teacher import open_teacher
from pocketbert.params import TeachParams
from pocketbert.stage import Metrics
from pocketbert.training.loop.batches import tokenize_rows
from pocketbert.training.loop.curves import write_curves
from pocketbert.training.loop.objective import HardLabels
from pocketbert.training.loop.trainer import Outcome, train
from pocketbert.training.loop.validation import Validation

logger = logging.getLogger("pocketbert")


def teach_classifier(
    params: TeachParams, labels: LabelSet, train_split: Split, valid: Split, output: Path, plots: Path
) -> Metrics:
    """Train the teacher and write it as the artifact `teacher`; one that knows the labels already is only scored.

    Raises ParamsError where max_length is over the model's limit, CheckpointError and TrainingError.
    """
    set_seed(params.seed)
    source = resolve_checkpoint(params.checkpoint, params.revision)
    output.mkdir(parents=True, exist_ok=True)
    encoder = save_tokenizer(source, output)
    model, fitted = open_teacher(source, params.pooling, params.head, labels)
    check_fit(model, encoder, params.max_length)
    validation = Validation.of(valid, encoder, params)
    if fitted:
        loss, right = validation.score(model)
        logger.info("the teacher is fine-tuned already: validation accuracy %.4f", right)
        write_curves([{"epoch": 0.0, "eval_loss": loss, "eval_accuracy": right}], plots)
        outcome = Outcome(0.0, right, loss, None, 0)
    else:
        rows = tokenize_rows(train_split, encoder, params.max_length)
        outcome = train(
            model, HardLabels(params.label_smoothing), rows, validation, params, plots, processes=params.processes
        )
    artifact = save_classifier(model, "teacher", labels, encoder, params.max_length, output)
    return {
        **outcome.metrics(),
        "trained": not fitted,
        "parameters": model.num_parameters(),
        "size_bytes": artifact.size_bytes,
    }

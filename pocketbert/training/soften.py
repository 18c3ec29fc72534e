"""The teacher run over the training text and over unlabelled text."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import read_artifact
from pocketbert.data.columns import find_text_column
from pocketbert.data.load import load_file
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import DataError, TrainingError
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.inference import predict_logits
from pocketbert.params import SoftenParams
from pocketbert.stage import Metrics
from pocketbert.training.soft_labels import (
    SoftLabels,
    SoftLabelsCard,
    text_digest,
    tokenizer_digest,
    write_soft_labels,
)

logger = logging.getLogger("pocketbert")


def soften_texts(params: SoftenParams, teacher: Path, texts: Sequence[str], output: Path) -> Metrics:
    """Write the logits of the teacher in `teacher` over `texts` and over the unlabelled file."""
    artifact = read_artifact(teacher)
    model, encoder = load_classifier(teacher), TextEncoder(teacher)
    extra = read_unlabelled(params.unlabelled) if params.unlabelled else []
    ids = encoder.encode_rows([*texts, *extra], artifact.card.max_length)
    logits = predict_logits(model, ids, encoder.pad_id, params.batch_size)
    if not np.isfinite(logits).all():
        row = int(np.argwhere(~np.isfinite(logits))[0][0])
        raise TrainingError(
            f"the teacher gives NaN or infinite logits, first for row {row}", "Train the teacher again."
        )
    card = SoftLabelsCard(
        train_rows=len(texts),
        train_digest=text_digest(texts),
        unlabelled_rows=len(extra),
        unlabelled_digest=text_digest(extra),
        classes=logits.shape[1],
        teacher_md5=artifact.md5(),
        tokenizer_digest=tokenizer_digest(teacher),
    )
    write_soft_labels(SoftLabels(card, logits[: len(texts)], extra, logits[len(texts) :]), output)
    return {
        "train_rows": len(texts),
        "unlabelled_rows": len(extra),
        "classes": card.classes,
        "size_bytes": sum(path.stat().st_size for path in output.iterdir()),
        "entropy_mean_nats": _entropy(logits, model.config.problem_type),
    }


def read_unlabelled(path: Path) -> list[str]:
    """Texts of a text file (a row a line) or of the text column of a table; empty ones are left out."""
    if path.suffix.lower() == ".txt":
        try:
            cells: Sequence[object] = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read: {error}", "Give soften.unlabelled a UTF-8 text file.") from error
    else:
        table = load_file(path)
        cells = table.columns[find_text_column(table)]
    texts = [cell.strip() for cell in cells if isinstance(cell, str) and cell.strip()]
    if not texts:
        raise DataError(f"{path} holds no text", "Correct soften.unlabelled, or set it to null.")
    logger.info("%d unlabelled texts from %s", len(texts), path)
    return texts


def _entropy(logits: NDArray[np.float32], problem_type: str) -> float:
    """Mean entropy of the teacher's distribution, in nats a row (a class for a multi-label task)."""
    values = logits.astype(np.float64)
    if problem_type == "multi_label_classification":
        values = np.stack([values, np.zeros_like(values)], axis=-1)
    shifted = values - values.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return float(-(np.exp(log_p) * log_p).sum(axis=-1).mean())

"""Logits of a torch classifier over many texts, and what they say about the labels."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pocketbert.modeling.classifier import PocketBertClassifier


def pad_rows(rows: Sequence[Sequence[int]], pad_id: int) -> dict[str, Tensor]:
    """Token ids of several texts as input_ids and attention_mask, int64 [B, longest]."""
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return {"input_ids": ids, "attention_mask": (torch.arange(width) < lengths[:, None]).long()}


@torch.inference_mode()
def predict_logits(
    model: PocketBertClassifier, rows: Sequence[Sequence[int]], pad_id: int, batch_size: int
) -> NDArray[np.float32]:
    """Logits [rows, C] of tokenized texts in their own order; batches hold rows of like length."""
    was_training = model.training
    model.eval()
    logits = np.empty((len(rows), model.config.num_labels), dtype=np.float32)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = {name: tensor.to(model.device) for name, tensor in pad_rows([rows[i] for i in chosen], pad_id).items()}
        logits[chosen] = model(**batch).logits.float().cpu().numpy()
    model.train(was_training)
    return logits


def accuracy(logits: NDArray[np.float32], targets: NDArray[np.int64] | NDArray[np.float32]) -> float:
    """Share of rows whose class, or in a multi-label task whose whole set of classes (probability > 0.5), is right."""
    if targets.ndim == 1:
        return float((logits.argmax(axis=1) == targets).mean())
    return float(((logits > 0.0) == (targets > 0.5)).all(axis=1).mean())

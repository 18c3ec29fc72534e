"""Loss and accuracy over the validation split."""

from dataclasses import dataclass

import torch

from pocketbert.data.dataset import Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.modeling.inference import accuracy, predict_logits
from pocketbert.modeling.losses import hard_loss
from pocketbert.params import OptimizerParams
from pocketbert.training.loop.group import ALONE, Group


@dataclass(frozen=True)
class Validation:
    """The validation split, tokenized."""

    ids: list[list[int]]
    split: Split
    pad_id: int
    batch_size: int

    @classmethod
    def of(cls, split: Split, encoder: TextEncoder, params: OptimizerParams) -> "Validation":
        """Tokenize a split as training does."""
        ids = encoder.encode_rows(split.texts, params.max_length)
        return cls(ids, split, encoder.pad_id, 2 * params.batch_size)

    def score(self, model: PocketBertClassifier, group: Group = ALONE) -> tuple[float, float]:
        """Mean loss (without smoothing) and accuracy of the model; a group computes it together."""
        own = predict_logits(model, self.ids[group.rank :: group.size], self.pad_id, self.batch_size)
        logits = group.gather(torch.from_numpy(own), len(self.ids)).numpy()
        loss = hard_loss(torch.from_numpy(logits), torch.from_numpy(self.split.targets)).mean()
        return float(loss), accuracy(logits, self.split.targets)

"""What a training minimises."""

from collections.abc import Mapping

from torch import Tensor, nn

from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.modeling.losses import hard_loss


class Objective(nn.Module):
    """Loss of a batch; parameters of its own (projections) are trained along, and not part of the model."""

    def forward(self, model: PocketBertClassifier, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean loss over the rows of `batch` (see `TrainingRows.collate`), a scalar."""
        raise NotImplementedError


class HardLabels(Objective):
    """Cross-entropy with the labels."""

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, model: PocketBertClassifier, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean cross-entropy of the batch."""
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return hard_loss(logits, batch["labels"], self.label_smoothing).mean()

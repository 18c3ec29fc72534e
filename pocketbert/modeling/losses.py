"""Training losses, one value a row [B], so that rows without a label can leave out the hard part.

Notation: B rows, C classes, S tokens, H hidden units. A row without a label has `UNLABELLED` in its target.
"""

import torch
from torch import Tensor, nn

UNLABELLED = -100


def hard_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy [B] with the labels; 0 for rows without one.

    Single-label: targets int64 [B], smoothing as in Szegedy et al. 2016, section 7. Multi-label: targets float
    [B, C] of 0/1, mean binary cross-entropy over the classes, smoothed to smoothing / 2 and 1 - smoothing / 2.
    """
    if not targets.is_floating_point():
        return nn.functional.cross_entropy(
            logits, targets, ignore_index=UNLABELLED, label_smoothing=smoothing, reduction="none"
        )
    labelled = targets[:, 0] != UNLABELLED
    smooth = targets.clamp(min=0.0) * (1.0 - smoothing) + smoothing / 2.0
    losses = nn.functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none").mean(dim=1)
    return losses * labelled


def soft_loss(logits: Tensor, teacher_logits: Tensor, temperature: float, multi_label: bool = False) -> Tensor:
    """The teacher's part [B], times T^2 (Hinton et al. 2015, section 2).

    Single-label: KL(softmax(teacher / T) || softmax(student / T)). Multi-label: binary cross-entropy with the
    targets sigmoid(teacher / T), mean over the classes.
    """
    student, teacher = logits / temperature, teacher_logits / temperature
    if multi_label:
        target = teacher.sigmoid()
        losses = nn.functional.binary_cross_entropy_with_logits(student, target, reduction="none").mean(dim=1)
    else:
        losses = nn.functional.kl_div(
            student.log_softmax(dim=1), teacher.log_softmax(dim=1), reduction="none", log_target=True
        ).sum(dim=1)
    return losses * temperature**2


def hidden_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference [B] of hidden states [B, S, H] over the real tokens (Jiao et al. 2020, eq. 8)."""
    per_token = (student - teacher).square().mean(dim=2)
    return _mean_over_tokens(per_token, mask)


def attention_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL(teacher || student) [B] of the attention each real token pays, averaged over the heads first.

    Attention is [B, heads, S, S]; the number of heads may differ. After Sun et al. 2020 (MobileBERT), section 3.4.
    """
    ours, theirs = student.mean(dim=1), teacher.mean(dim=1)
    tiny = torch.finfo(ours.dtype).tiny
    per_token = (theirs * (theirs.clamp(min=tiny).log() - ours.clamp(min=tiny).log())).sum(dim=2)
    return _mean_over_tokens(per_token, mask)


def _mean_over_tokens(values: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(values.dtype)
    return (values * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)

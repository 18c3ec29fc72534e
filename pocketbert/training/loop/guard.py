"""Stops a training at the first NaN or infinity and names the layer that it came from."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pocketbert.errors import TrainingError
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.training.loop.objective import Objective


def clip_gradients(parameters: list[nn.Parameter], limit: float) -> bool:
    """Scale gradients down to the norm `limit`; False, and nothing is changed, where the norm is not finite."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if not torch.isfinite(norm):
        return False
    nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return True


def diverged(
    step: int, model: PocketBertClassifier, objective: Objective, batch: Mapping[str, Tensor]
) -> TrainingError:
    """The error for a step whose loss or gradient is not finite; `step` counts from 1."""
    return TrainingError(
        f"training diverged at step {step}: {_find_layer(model, objective, batch)}",
        "Lower learning_rate or head_learning_rate, raise warmup_fraction, or start from another checkpoint.",
    )


def _find_layer(model: PocketBertClassifier, objective: Objective, batch: Mapping[str, Tensor]) -> str:
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the weights {name} hold NaN or infinity"
    layer = _first_bad_output(model, objective, batch)
    if layer is not None:
        return f"the output of {layer} holds NaN or infinity"
    # Gradients flow from the last layer to the first.
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the gradient of {name} holds NaN or infinity"
    return "the loss is NaN or infinite, though no layer's output is"


def _first_bad_output(model: PocketBertClassifier, objective: Objective, batch: Mapping[str, Tensor]) -> str | None:
    """Run the batch again and return the first layer, in the order of execution, whose output is not finite."""
    bad: list[str] = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                bad.append(name)

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves]
    try:
        with torch.no_grad():
            objective(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return bad[0] if bad else None

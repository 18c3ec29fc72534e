"""Fake quantization of a classifier: what the static int8 recipes compute, in float and with gradients.

    weights of linear layers       int8, symmetric, -127 to 127, one scale an output channel
    their inputs and outputs       int8, affine, -128 to 127, one scale a tensor; the logits stay in float
    embedding tables               int8, symmetric, -127 to 127, one scale a row

The rounding is torch.ao.quantization's: q = clamp(round(x / scale) + zero_point), its gradient straight through inside
the range and zero outside (Jacob et al. 2018, arXiv:1712.05877, section 3). Parameters keep their names.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.nn.qat import Linear as FakeQuantizedLinear
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QConfig,
)
from transformers.models.mobilebert.modeling_mobilebert import NoNorm

from pocketbert.modeling.classifier import PocketBertClassifier

# Weight of a new batch in the moving average of an activation's range.
_AVERAGING = 0.01
_WEIGHT = FakeQuantize.with_args(
    # A constant of 1: the range is that of the weights as they are now.
    observer=MovingAveragePerChannelMinMaxObserver.with_args(averaging_constant=1.0),
    quant_min=-127, quant_max=127, dtype=torch.qint8, qscheme=torch.per_channel_symmetric, ch_axis=0,
)  # fmt: skip
# What the converter computes in one op with the linear layer before it; the int8 tensor lies behind both.
_FUSED = (nn.ReLU, NoNorm)


class ActivationFakeQuantize(FakeQuantize):
    """Fake quantization of one tensor, whose range is watched in training and fixed in evaluation."""

    def __init__(self) -> None:
        super().__init__(
            MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8,
            qscheme=torch.per_tensor_affine, averaging_constant=_AVERAGING,
        )  # fmt: skip

    def train(self, mode: bool = True) -> "ActivationFakeQuantize":
        """torch's train mode."""
        super().train(mode)
        self.enable_observer(mode)
        return self

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest value that int8 can hold here."""
        scale, zero = float(self.scale), int(self.zero_point)
        return (self.quant_min - zero) * scale, (self.quant_max - zero) * scale


def insert_fake_quantization(model: PocketBertClassifier, batches: Iterable[Mapping[str, Tensor]]) -> None:
    """Put fake quantization into `model`, in place, with ranges measured in float over `batches` (ids and mask)."""
    rows = list(batches)
    closing = _closing_modules(model, rows[0])
    last = [name for name, module in model.head.named_modules(prefix="head") if isinstance(module, nn.Linear)][-1]
    for name, linear in [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]:
        replaced = _replace(model, name, linear)
        if name != last:
            behind = closing[name]
            (replaced if behind is linear else behind).register_forward_hook(_OutputHook(replaced))
    for name, table in model.named_modules():
        # Positions are constants of the exported graph, added in float.
        if isinstance(table, nn.Embedding) and not name.endswith("position_embeddings"):
            table.register_forward_hook(lambda _module, _ids, looked_up: fake_quantize_rows(looked_up))
    _calibrate(model, rows)


def fake_quantize_rows(rows: Tensor) -> Tensor:
    """Round looked-up rows [..., H] as an int8 table with one scale a row does."""
    flat = rows.reshape(-1, rows.shape[-1])
    # A row of zeros must not divide by zero.
    scale = (flat.detach().abs().amax(dim=1) / 127).clamp(min=torch.finfo(flat.dtype).tiny)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(flat, scale, zero, 0, -127, 127).reshape(rows.shape)


class _OutputHook:
    """Forward hook that fake-quantizes the output of a linear layer, wherever it ends."""

    def __init__(self, linear: nn.Module) -> None:
        linear.output_fake_quant = ActivationFakeQuantize()
        self.linear = linear

    def __call__(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return self.linear.output_fake_quant(output)


def _replace(model: nn.Module, name: str, linear: nn.Linear) -> FakeQuantizedLinear:
    """Replace a linear layer by torch.ao's, which has the same parameters, and watch its input."""
    linear.qconfig = QConfig(activation=ActivationFakeQuantize, weight=_WEIGHT)
    replaced = FakeQuantizedLinear.from_float(linear)
    replaced.input_fake_quant = ActivationFakeQuantize()
    replaced.register_forward_pre_hook(lambda module, inputs: (module.input_fake_quant(*inputs),))
    model.set_submodule(name, replaced)
    return replaced


@torch.no_grad()
def _closing_modules(model: PocketBertClassifier, batch: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """For each linear layer the module that ends the op which it becomes: itself, or the fused one behind it."""
    names = {module: name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    # The tensors themselves are kept: an id of a freed one may be given again.
    made: list[tuple[Tensor, str]] = []
    closing: dict[str, nn.Module] = {name: module for module, name in names.items()}

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if module in names:
            made.append((output, names[module]))
        else:
            closing.update({name: module for tensor, name in made if tensor is inputs[0]})

    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, (nn.Linear, *_FUSED))]
    try:
        model.eval()(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return closing


@torch.no_grad()
def _calibrate(model: PocketBertClassifier, batches: list[Mapping[str, Tensor]]) -> None:
    watched = [module for module in model.modules() if isinstance(module, ActivationFakeQuantize)]
    model.eval()
    for module in watched:
        module.enable_observer()
        module.disable_fake_quant()
    for batch in batches:
        model(**batch)
    for module in watched:
        module.disable_observer()
        module.enable_fake_quant()

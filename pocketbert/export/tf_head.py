"""Pooling and classifier head: the counterparts of `pool` and `ClassifierHead` in pocketbert/modeling/classifier.py."""

from collections.abc import Callable
from typing import Literal

import tensorflow as tf
from torch import nn

from pocketbert.errors import ExportError
from pocketbert.export.tf_layers import Linear, Tensor
from pocketbert.export.transplant import Transplant


def pool(hidden: Tensor, mask: Tensor, pooling: Literal["mean", "cls"], *, stock: bool = False) -> Tensor:
    """Pool hidden states [1, S, H] under a float mask of 0 and 1 [1, S] into [1, 1, H].

    As in torch, the weights are normalised before the sum (no half-precision sum of a whole row) and a row
    without a single token pools to zero. `stock` is how models are mostly written: a shrinking slice, a sum of rows.
    """
    _, length, width = hidden.shape
    if stock:
        if pooling == "cls":
            return tf.expand_dims(hidden[:, 0] * mask[:, :1], 1)
        summed = tf.reduce_sum(hidden * mask[:, :, None], axis=1, keepdims=True)
        return summed / tf.maximum(tf.reduce_sum(mask, axis=1)[:, None, None], 1.0)
    if pooling == "cls":
        first = tf.slice(mask, [0, 0], [1, 1])
        return tf.slice(hidden, [0, 0, 0], [1, 1, width]) * tf.reshape(first, [1, 1, 1])
    weights = mask / tf.maximum(tf.reduce_sum(mask, axis=1, keepdims=True), 1.0)
    return tf.matmul(tf.reshape(weights, [1, 1, length]), hidden)


class Head(tf.Module):
    """The layers of a torch `ClassifierHead`, in its order and with its own activations."""

    def __init__(self, transplant: Transplant, name: str) -> None:
        super().__init__()
        self.steps = [
            Linear(transplant, f"{name}.{child}") if isinstance(module, nn.Linear) else _activation(module)
            for child, module in transplant.module(name).named_children()
            if not isinstance(module, nn.Dropout)
        ]

    def __call__(self, pooled: Tensor) -> Tensor:
        """[1, 1, H] -> logits [1, C]."""
        return self.states(pooled)[-1]

    def states(self, pooled: Tensor) -> list[Tensor]:
        """What each linear layer reads, [1, 1, H] or [1, 1, width], and the logits [1, C]."""
        x, states = pooled, []
        for step in self.steps:
            if isinstance(step, Linear):
                states.append(x)
            x = step(x)
        return [*states, tf.reshape(x, [1, x.shape[-1]])]


def _activation(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The TensorFlow function of a torch activation module, with the module's own slope or variant."""
    match module:
        case nn.LeakyReLU():
            return lambda x: tf.nn.leaky_relu(x, alpha=module.negative_slope)
        case nn.ReLU():
            return tf.nn.relu
        case nn.GELU():
            return lambda x: tf.nn.gelu(x, approximate=module.approximate == "tanh")
        case nn.Tanh():
            return tf.nn.tanh
    raise ExportError(
        f"the head holds a {type(module).__name__}, which has no TensorFlow counterpart here",
        "Use an activation that pocketbert/export/tf_head.py names, or add this one there.",
    )

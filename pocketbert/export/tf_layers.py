"""Layers of our own TensorFlow graph, made only of operations that GPU delegates take.

Activations are float32 [1, S, H] throughout. docs/conversion.md says which operations are allowed and why.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf
from torch import nn

from pocketbert.errors import ExportError
from pocketbert.export.transplant import IDENTITY, Transform, Transplant, rows

Tensor: TypeAlias = tf.Tensor

# transformers' names of the activations; "gelu" is the exact one (erf), the others use tanh.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": lambda x: tf.nn.gelu(x, approximate=False),
    "gelu_new": lambda x: tf.nn.gelu(x, approximate=True),
    "gelu_pytorch_tanh": lambda x: tf.nn.gelu(x, approximate=True),
    "gelu_fast": lambda x: tf.nn.gelu(x, approximate=True),
    "relu": tf.nn.relu,
    "tanh": tf.nn.tanh,
    "silu": lambda x: x * tf.sigmoid(x),
    "swish": lambda x: x * tf.sigmoid(x),
}


def activation(name: object) -> Callable[[Tensor], Tensor]:
    """The activation of a transformers configuration; raises ExportError."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ExportError(
            f"activation {name!r} has no TensorFlow counterpart", f"Use one of {', '.join(sorted(ACTIVATIONS))}."
        )
    return ACTIVATIONS[name]


def per_channel(parameter: tf.Variable) -> Tensor:
    """A vector [H] as [1, 1, H], to be added to or multiplied with [1, S, H].

    The converter folds a rank 1 constant into the linear layers behind it. That saves nothing, as the residual
    needs the unfolded value too, and it takes from the file the very tensors that `validate` looks for.
    """
    return tf.reshape(parameter, [1, 1, -1])


class Linear(tf.Module):
    """y = x W^T + b, with W as torch and TFLite both store it: [out, in]."""

    def __init__(
        self, transplant: Transplant, name: str, weight: Transform = IDENTITY, bias: Transform = IDENTITY
    ) -> None:
        super().__init__()
        self.weight = transplant.variable(f"{name}.weight", weight)
        self.bias = transplant.variable(f"{name}.bias", bias)

    def __call__(self, x: Tensor) -> Tensor:
        """[1, S, in] -> [1, S, out]."""
        return tf.matmul(x, self.weight, transpose_b=True) + per_channel(self.bias)


class LayerNorm(tf.Module):
    """Layer normalisation over the last axis (Ba et al. 2016, arXiv:1607.06450), biased variance."""

    def __init__(self, transplant: Transplant, name: str) -> None:
        super().__init__()
        # From the module, not from the configuration: MobileBERT does not use its layer_norm_eps everywhere.
        self.epsilon = float(transplant.module(name).eps)
        self.weight = transplant.variable(f"{name}.weight")
        self.bias = transplant.variable(f"{name}.bias")

    def __call__(self, x: Tensor) -> Tensor:
        """[1, S, H] -> [1, S, H]."""
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        normed = centred * tf.math.rsqrt(variance + self.epsilon)
        return normed * per_channel(self.weight) + per_channel(self.bias)


class NoNorm(tf.Module):
    """MobileBERT's element-wise affine map in place of a norm (Sun et al. 2020, section 3.3)."""

    def __init__(self, transplant: Transplant, name: str) -> None:
        super().__init__()
        self.weight = transplant.variable(f"{name}.weight")
        self.bias = transplant.variable(f"{name}.bias")

    def __call__(self, x: Tensor) -> Tensor:
        """[1, S, H] -> [1, S, H]."""
        return x * per_channel(self.weight) + per_channel(self.bias)


def norm(transplant: Transplant, name: str) -> LayerNorm | NoNorm:
    """The counterpart of the torch module `name`, whichever of the two it is."""
    kind = LayerNorm if isinstance(transplant.module(name), nn.LayerNorm) else NoNorm
    return kind(transplant, name)


class SelfAttention(tf.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2), heads on axis 1 of rank 4."""

    def __init__(self, query: Linear, key: Linear, value: Linear, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.heads = query, key, value, heads

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Attend from `query` to `key` and `value` [1, S, in], with an additive mask [1, 1, 1, S] -> [1, S, H]."""
        q, k, v = self._split(self.query(query)), self._split(self.key(key)), self._split(self.value(value))
        # The queries are scaled, not the scores: fewer products, and no large scores in half precision.
        scores = tf.matmul(q * (1.0 / math.sqrt(q.shape[-1])), k, transpose_b=True)
        context = tf.matmul(tf.nn.softmax(scores + mask, axis=-1), v)
        length, width = q.shape[2], self.heads * q.shape[3]
        return tf.reshape(tf.transpose(context, [0, 2, 1, 3]), [1, length, width])

    def _split(self, x: Tensor) -> Tensor:
        """[1, S, heads * D] -> [1, heads, S, D]."""
        _, length, width = x.shape
        return tf.transpose(tf.reshape(x, [1, length, self.heads, width // self.heads]), [0, 2, 1, 3])


class Lookup(tf.Module):
    """Rows of an embedding table; the ids are flattened, as GPU delegates gather by 1-D indices only."""

    def __init__(self, transplant: Transplant, name: str) -> None:
        super().__init__()
        self.table = transplant.variable(f"{name}.weight")

    def __call__(self, ids: Tensor) -> Tensor:
        """int32 [1, S] -> float32 [1, S, width]."""
        length, width = ids.shape[1], self.table.shape[1]
        return tf.reshape(tf.gather(self.table, tf.reshape(ids, [length])), [1, length, width])


class FixedRows(tf.Module):
    """Rows of an embedding table that no input selects: positions, or the only token type of a model."""

    def __init__(self, transplant: Transplant, name: str, start: int, count: int) -> None:
        super().__init__()
        self.rows = transplant.variable(f"{name}.weight", rows(start, start + count))

    def __call__(self) -> Tensor:
        """float32 [1, count, width]."""
        return tf.reshape(self.rows, [1, *self.rows.shape])

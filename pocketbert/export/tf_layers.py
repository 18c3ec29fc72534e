"""Layers of our own TensorFlow graph, made only of operations that GPU delegates take.

Activations are float32 [1, S, H] throughout. docs/conversion.md says which operations are allowed and why.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import tensorflow as tf
from torch import nn

from pocketbert.errors import ExportError
from pocketbert.export.tf_portable import PORTABLE_ACTIVATIONS
from pocketbert.export.transplant import IDENTITY, Transplant, rows

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


def activation(
    name: object, gelu: Literal["exact", "tanh"] = "exact", *, portable: bool = False
) -> Callable[[Tensor], Tensor]:
    """The activation of a transformers configuration, `gelu` the form of the exact one; raises ExportError."""
    if name == "gelu" and gelu == "tanh":
        name = "gelu_new"
    if portable and isinstance(name, str) and name in PORTABLE_ACTIVATIONS:
        return PORTABLE_ACTIVATIONS[name]
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

    def __init__(self, transplant: Transplant, name: str) -> None:
        super().__init__()
        self.in_parts = transplant.has(f"{name}.weight.parts")
        self.weight = transplant.variable(f"{name}.weight.parts" if self.in_parts else f"{name}.weight")
        self.bias = transplant.variable(f"{name}.bias")
        self.convolves, self.portable = transplant.variants.linear == "conv", transplant.portable

    def __call__(self, x: Tensor) -> Tensor:
        """[1, S, in] -> [1, S, out]."""
        if self.in_parts:
            return self._sum_of_parts(x)
        # TensorFlow Lite 2.x's delegates take a fully connected layer of a single row only.
        if self.convolves or (self.portable and x.shape[1] > 1):
            _, length, width = x.shape
            filters = tf.transpose(self.weight)[None, None]
            image = tf.nn.conv2d(tf.reshape(x, [1, 1, length, width]), filters, strides=1, padding="VALID")
            return tf.reshape(image + tf.reshape(self.bias, [1, 1, 1, -1]), [1, length, filters.shape[-1]])
        return tf.matmul(x, self.weight, transpose_b=True) + per_channel(self.bias)

    def _sum_of_parts(self, x: Tensor) -> Tensor:
        """The products of all parts at once, weight [P, out, in / P], then their sum."""
        count, out, width = self.weight.shape
        parts = tf.transpose(tf.reshape(x, [1, x.shape[1], count, width]), [0, 2, 1, 3])
        products = tf.matmul(parts, tf.reshape(self.weight, [1, count, out, width]), transpose_b=True)
        return tf.reduce_sum(products, axis=1) + per_channel(self.bias)


class Norm(tf.Module):
    """A gain and a shift by channel behind whatever normalises; a fusion may have taken either away."""

    def __init__(self, transplant: Transplant, name: str) -> None:
        super().__init__()
        gain, shift = f"{name}.weight", f"{name}.bias"
        self.weight = transplant.variable(gain) if transplant.has(gain) else None
        self.bias = transplant.variable(shift) if transplant.has(shift) else None

    def __call__(self, x: Tensor) -> Tensor:
        """[1, S, H] -> [1, S, H]."""
        x = x if self.weight is None else x * per_channel(self.weight)
        return x if self.bias is None else x + per_channel(self.bias)


class NoNorm(Norm):
    """MobileBERT's element-wise affine map in place of a norm (Sun et al. 2020, section 3.3)."""


class LayerNorm(Norm):
    """Layer normalisation over the last axis (Ba et al. 2016, arXiv:1607.06450), biased variance."""

    def __init__(self, transplant: Transplant, name: str) -> None:
        super().__init__(transplant, name)
        # From the module, not from the configuration: MobileBERT does not use its layer_norm_eps everywhere.
        self.epsilon = float(transplant.module(name).eps)

    def __call__(self, x: Tensor) -> Tensor:
        """[1, S, H] -> [1, S, H]."""
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        return super().__call__(centred * tf.math.rsqrt(variance + self.epsilon))


def norm(transplant: Transplant, name: str) -> LayerNorm | NoNorm:
    """The counterpart of the torch module `name`, whichever of the two it is."""
    kind = LayerNorm if isinstance(transplant.module(name), nn.LayerNorm) else NoNorm
    return kind(transplant, name)


@dataclass(frozen=True)
class Projections:
    """Names of the linear layers before an attention, and of the products that fusions make of them."""

    query: str
    key: str
    value: str
    # Queries, keys and values of one input; queries and keys alone, where the values have another.
    product: str
    query_key: str = ""


class SelfAttention(tf.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2), heads on axis 1 of rank 4."""

    def __init__(self, transplant: Transplant, names: Projections, heads: int) -> None:
        super().__init__()
        self.heads, self.scaled = heads, transplant.fused("query_scale")
        self.portable = transplant.portable
        self.flat = transplant.variants.heads == "3d" and not self.portable
        groups: dict[str, tuple[str, ...]] = {names.product: ("q", "k", "v"), names.query_key: ("q", "k")}
        made = next((name for name in groups if name and transplant.has(f"{name}.bias")), None)
        parts = [(made, groups[made])] if made else [(names.query, ("q",)), (names.key, ("k",))]
        parts += [(names.value, ("v",))] if transplant.has(f"{names.value}.bias") else []
        self.products = [(Linear(transplant, name), roles) for name, roles in parts]
        # Else a fusion computes the values together with what else reads the layer's input.
        self.has_values = any("v" in roles for _, roles in self.products)

    def __call__(self, query_key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Attend from and to `query_key` [1, S, in] over `value` [1, S, in'], mask [1, 1, 1, S] -> [1, S, H]."""
        heads: dict[str, Tensor] = {}
        for product, roles in self.products if self.has_values else ():
            heads |= self._split(product(value if "v" in roles else query_key), roles)
        if not self.has_values:
            heads = self._split(tf.concat([self.products[0][0](query_key), value], axis=2), ("q", "k", "v"))
        q, k, v = heads["q"], heads["k"], heads["v"]
        # The queries are scaled, not the scores: fewer products, and no large scores in half precision.
        q = q if self.scaled else q * (1.0 / math.sqrt(q.shape[-1]))
        mask = tf.reshape(mask, [1, 1, mask.shape[-1]]) if self.flat else mask
        scores = tf.matmul(q, k, transpose_b=not self.portable)
        context = tf.matmul(tf.nn.softmax(scores + mask, axis=-1), v)
        length, width = q.shape[-2], self.heads * q.shape[-1]
        return tf.reshape(tf.transpose(context, [1, 0, 2] if self.flat else [0, 2, 1, 3]), [1, length, width])

    def _split(self, x: Tensor, roles: tuple[str, ...]) -> dict[str, Tensor]:
        """[1, S, roles * heads * D] -> [1, heads, S, D] each, or [heads, S, D]."""
        _, length, width = x.shape
        count = len(roles) * self.heads
        size = width // count
        if self.portable:
            return self._split_before(tf.reshape(x, [1, length, count, size]), roles)
        if self.flat:
            together, heads_axis = tf.transpose(tf.reshape(x, [length, count, size]), [1, 0, 2]), 0
        else:
            together, heads_axis = tf.transpose(tf.reshape(x, [1, length, count, size]), [0, 2, 1, 3]), 1
        # All of them at once, where each is contiguous.
        parts = tf.split(together, len(roles), axis=heads_axis) if len(roles) > 1 else [together]
        return dict(zip(roles, parts, strict=True))

    def _split_before(self, x: Tensor, roles: tuple[str, ...]) -> dict[str, Tensor]:
        """[1, S, roles * heads, D] -> [1, heads, S, D], the keys [1, heads, D, S].

        For delegates that do not read the flag by which a product transposes an operand.
        """
        _, length, _, size = x.shape
        axes = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
        shape = [1, length, self.heads, size]
        parts = {role: tf.slice(x, [0, 0, i * self.heads, 0], shape) for i, role in enumerate(roles)}
        return {role: tf.transpose(part, axes[role]) for role, part in parts.items()}


class Lookup(tf.Module):
    """Rows of an embedding table; the ids are flattened, as GPU delegates gather by 1-D indices only.

    Not `flat`: as transformers' own TensorFlow classes do it.
    """

    def __init__(self, transplant: Transplant, name: str, *, flat: bool = True) -> None:
        super().__init__()
        self.table, self.flat, self.dtype = transplant.table(f"{name}.weight"), flat, transplant.dtype

    def __call__(self, ids: Tensor) -> Tensor:
        """int32 [1, S] -> float32 [1, S, width]."""
        if not self.flat:
            return tf.cast(tf.gather(self.table, ids), self.dtype)
        length, width = ids.shape[1], self.table.shape[1]
        return tf.cast(tf.reshape(tf.gather(self.table, tf.reshape(ids, [length])), [1, length, width]), self.dtype)


class HostRows(tf.Module):
    """Rows of embedding tables that the host looks up: the graph reads them as a float input [1, S, width]."""

    def __init__(self, transplant: Transplant, *tables: str) -> None:
        super().__init__()
        self.tables = {name: transplant.host_table(name) for name in tables}

    def __call__(self, rows: Tensor) -> Tensor:
        """[1, S, width], as it is."""
        return rows


class FixedRows(tf.Module):
    """Rows of an embedding table that no input selects: positions, or the only token type of a model."""

    def __init__(self, transplant: Transplant, name: str, start: int, count: int) -> None:
        super().__init__()
        held = len(transplant.weights.value(f"{name}.weight"))
        used = rows(start, start + count) if held > count else IDENTITY
        self.rows = transplant.variable(f"{name}.weight", used)

    def __call__(self) -> Tensor:
        """float32 [1, count, width]."""
        return tf.reshape(self.rows, [1, *self.rows.shape])

"""MobileBERT (Sun et al. 2020, arXiv:2004.02984): bottlenecks, stacked feed-forward networks, trigram embeddings."""

from collections.abc import Callable

import tensorflow as tf
from transformers import PretrainedConfig

from pocketbert.export.tf_bert import Encoder, add_positions, token_types
from pocketbert.export.tf_layers import (
    FixedRows,
    HostRows,
    Linear,
    Lookup,
    Projections,
    SelfAttention,
    Tensor,
    activation,
    norm,
)
from pocketbert.export.transplant import Transplant
from pocketbert.numerics.fusion import HOST_POSITIONS, HOST_WORDS
from pocketbert.numerics.fusion_mobilebert import ENTRY, has_attention_bottleneck


class MobileBertEncoder(Encoder):
    """MobileBertModel without its pooling layer."""

    def __init__(
        self, transplant: Transplant, name: str, config: PretrainedConfig, length: int, *, flat: bool = True
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(transplant, f"{name}.embeddings", config, length, flat)
        self.layers = [
            Layer(transplant, f"{name}.encoder.layer.{index}", config) for index in range(config.num_hidden_layers)
        ]


class Embeddings(tf.Module):
    """Narrow word embeddings, three neighbours side by side, projected to the hidden size (section 3.1)."""

    def __init__(self, transplant: Transplant, name: str, config: PretrainedConfig, length: int, flat: bool) -> None:
        super().__init__()
        self.words: Lookup | HostRows
        self.positions: FixedRows | HostRows
        self.token_types: Lookup | FixedRows | None = None
        if transplant.has(HOST_WORDS):
            self.words, self.positions = HostRows(transplant, HOST_WORDS), HostRows(transplant, HOST_POSITIONS)
        else:
            self.words = Lookup(transplant, f"{name}.word_embeddings", flat=flat)
            self.positions = FixedRows(transplant, f"{name}.position_embeddings", 0, length)
            self.token_types = token_types(transplant, f"{name}.token_type_embeddings", flat)
        projection = f"{name}.embedding_transformation"
        self.project: Callable[[Tensor], Tensor] = tf.identity
        if transplant.has(f"{projection}.kernel"):
            self.project = TrigramConvolution(transplant, projection)
        elif config.trigram_input:
            self.project = Trigrams(transplant, projection)
        elif config.embedding_size != config.hidden_size:
            self.project = Linear(transplant, projection)
        self.norm = norm(transplant, f"{name}.LayerNorm")

    def __call__(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """int32 [1, S] each -> float32 [1, S, H]; or floats of the host: words [1, S, E], positions [1, S, H]."""
        words = self.project(self.words(input_ids))
        if isinstance(self.positions, HostRows):
            return self.norm(words + token_type_ids)
        return self.norm(add_positions(words, token_type_ids, self.positions, self.token_types))


class TrigramConvolution(tf.Module):
    """The same by one convolution over three positions, zero beyond the ends; kernel [out, 1, 3, in], as TFLite's."""

    def __init__(self, transplant: Transplant, name: str) -> None:
        super().__init__()
        self.kernel = transplant.variable(f"{name}.kernel")
        self.bias = transplant.variable(f"{name}.bias")

    def __call__(self, words: Tensor) -> Tensor:
        """[1, S, E] -> [1, S, H]."""
        _, length, width = words.shape
        image = tf.reshape(words, [1, 1, length, width])
        filters = tf.transpose(self.kernel, [1, 2, 3, 0])
        found = tf.nn.conv2d(image, filters, strides=1, padding="SAME") + tf.reshape(self.bias, [1, 1, 1, -1])
        return tf.reshape(found, [1, length, filters.shape[-1]])


class Trigrams(Linear):
    """Each word with its neighbours, projected."""

    def __call__(self, words: Tensor) -> Tensor:
        """[1, S, E] -> [1, S, H]: the next, the same and the previous position, zero beyond the ends."""
        shape = words.shape
        padded = tf.pad(words, [[0, 0], [1, 1], [0, 0]])
        after, before = tf.slice(padded, [0, 2, 0], shape), tf.slice(padded, [0, 0, 0], shape)
        return super().__call__(tf.concat([after, words, before], axis=2))


class DenseNorm(tf.Module):
    """A linear layer, an optional residual, a norm: torch modules `dense` and `LayerNorm` under one name."""

    def __init__(self, transplant: Transplant, name: str) -> None:
        super().__init__()
        self.dense = Linear(transplant, f"{name}.dense")
        self.norm = norm(transplant, f"{name}.LayerNorm")

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """[1, S, in] and a residual [1, S, out] -> [1, S, out]."""
        x = self.dense(x)
        return self.norm(x if residual is None else x + residual)


class FeedForward(tf.Module):
    """Intermediate layer, activation, output layer with residual: torch modules `intermediate` and `output`."""

    def __init__(self, transplant: Transplant, name: str, hidden_act: object) -> None:
        super().__init__()
        self.intermediate = Linear(transplant, f"{name}.intermediate.dense")
        self.activation = activation(hidden_act, transplant.variants.gelu, portable=transplant.portable)
        self.output = DenseNorm(transplant, f"{name}.output")

    def __call__(self, x: Tensor) -> Tensor:
        """[1, S, T] -> [1, S, T], T the width inside the bottleneck."""
        return self.output(self.activation(self.intermediate(x)), x)


class Layer(tf.Module):
    """One MobileBERT layer with or without a bottleneck around it (figure 1 and table 1 of the paper)."""

    def __init__(self, transplant: Transplant, name: str, config: PretrainedConfig) -> None:
        super().__init__()
        parts = ("query", "key", "value", "query_key_value", "query_key")
        projections = Projections(*(f"{name}.attention.self.{part}" for part in parts))
        self.attention = SelfAttention(transplant, projections, config.num_attention_heads)
        self.attention_output = DenseNorm(transplant, f"{name}.attention.output")
        self.inner = [
            FeedForward(transplant, f"{name}.ffn.{index}", config.hidden_act)
            for index in range(config.num_feedforward_networks - 1)
        ]
        self.last = FeedForward(transplant, name, config.hidden_act)
        self.entry: Linear | None = None
        self.bottleneck_in: DenseNorm | None = None
        self.bottleneck_attention: DenseNorm | None = None
        self.bottleneck_out = DenseNorm(transplant, f"{name}.output.bottleneck") if config.use_bottleneck else None
        self.shares_input = config.use_bottleneck_attention
        if transplant.has(f"{name}.bottleneck.{ENTRY}.bias"):
            self.entry = Linear(transplant, f"{name}.bottleneck.{ENTRY}")
        elif config.use_bottleneck:
            self.bottleneck_in = DenseNorm(transplant, f"{name}.bottleneck.input")
            if has_attention_bottleneck(config):
                self.bottleneck_attention = DenseNorm(transplant, f"{name}.bottleneck.attention")

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """[1, S, H] -> [1, S, H]."""
        query_key, value, residual = self._enter(hidden)
        x = self.attention_output(self.attention(query_key, value, mask), residual)
        for network in [*self.inner, self.last]:
            x = network(x)
        return x if self.bottleneck_out is None else self.bottleneck_out(x, hidden)

    def _enter(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the attention: (query and key, value, residual); a fused entry gives the values themselves."""
        if self.entry is not None:
            narrow, query_key, value = tf.split(self.entry(hidden), 3, axis=2)
            return query_key, value, narrow
        if self.bottleneck_in is None:
            return hidden, hidden, hidden
        narrow = self.bottleneck_in(hidden)
        if self.shares_input:
            return narrow, narrow, narrow
        query_key = hidden if self.bottleneck_attention is None else self.bottleneck_attention(hidden)
        return query_key, hidden, narrow

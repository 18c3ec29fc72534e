"""MobileBERT (Sun et al. 2020, arXiv:2004.02984): bottlenecks, stacked feed-forward networks, trigram embeddings."""

import tensorflow as tf
from torch import nn
from transformers import PretrainedConfig

from pocketbert.export.tf_bert import Encoder, add_positions
from pocketbert.export.tf_layers import FixedRows, Linear, Lookup, SelfAttention, Tensor, activation, norm
from pocketbert.export.transplant import Transform, Transplant


class MobileBertEncoder(Encoder):
    """MobileBertModel without its pooling layer."""

    def __init__(self, transplant: Transplant, name: str, config: PretrainedConfig, length: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(transplant, f"{name}.embeddings", config, length)
        self.layers = [
            Layer(transplant, f"{name}.encoder.layer.{index}", config) for index in range(config.num_hidden_layers)
        ]


class Embeddings(tf.Module):
    """Narrow word embeddings, three neighbours side by side, projected to the hidden size (section 3.1)."""

    def __init__(self, transplant: Transplant, name: str, config: PretrainedConfig, length: int) -> None:
        super().__init__()
        self.trigram = config.trigram_input
        self.projected = config.trigram_input or config.embedding_size != config.hidden_size
        self.words = Lookup(transplant, f"{name}.word_embeddings")
        self.positions = FixedRows(transplant, f"{name}.position_embeddings", 0, length)
        types = f"{name}.token_type_embeddings"
        one_type = config.type_vocab_size == 1
        self.token_types = FixedRows(transplant, types, 0, 1) if one_type else Lookup(transplant, types)
        if self.projected:
            self.transformation = Linear(transplant, f"{name}.embedding_transformation")
        self.norm = norm(transplant, f"{name}.LayerNorm")

    def __call__(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """int32 [1, S] -> float32 [1, S, H]."""
        words = self.words(input_ids)
        words = _trigrams(words) if self.trigram else words
        words = self.transformation(words) if self.projected else words
        return self.norm(add_positions(words, token_type_ids, self.positions, self.token_types))


def _trigrams(words: Tensor) -> Tensor:
    """[1, S, E] -> [1, S, 3 E]: the next, the same and the previous position, zero beyond the ends."""
    shape = words.shape
    padded = tf.pad(words, [[0, 0], [1, 1], [0, 0]])
    return tf.concat([tf.slice(padded, [0, 2, 0], shape), words, tf.slice(padded, [0, 0, 0], shape)], axis=2)


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


def bottleneck(transplant: Transplant, name: str) -> DenseNorm | Linear:
    """The way into a bottleneck: `dense` and a norm without a residual between them.

    With NoNorm that is one linear layer, (W x + b) g + c = (g W) x + (b g + c). It is folded here, on record,
    because the converter would do so unasked.
    """
    if isinstance(transplant.module(f"{name}.LayerNorm"), nn.LayerNorm):
        return DenseNorm(transplant, name)
    gain, shift = f"{name}.LayerNorm.weight", f"{name}.LayerNorm.bias"
    weight = Transform("W * g", lambda w, g: w * g[:, None], (gain,))
    bias = Transform("b * g + c", lambda b, g, c: b * g + c, (gain, shift))
    return Linear(transplant, f"{name}.dense", weight, bias)


class FeedForward(tf.Module):
    """Intermediate layer, activation, output layer with residual: torch modules `intermediate` and `output`."""

    def __init__(self, transplant: Transplant, name: str, hidden_act: object) -> None:
        super().__init__()
        self.intermediate = Linear(transplant, f"{name}.intermediate.dense")
        self.activation = activation(hidden_act)
        self.output = DenseNorm(transplant, f"{name}.output")

    def __call__(self, x: Tensor) -> Tensor:
        """[1, S, T] -> [1, S, T], T the width inside the bottleneck."""
        return self.output(self.activation(self.intermediate(x)), x)


class Layer(tf.Module):
    """One MobileBERT layer with or without a bottleneck around it (figure 1 and table 1 of the paper)."""

    def __init__(self, transplant: Transplant, name: str, config: PretrainedConfig) -> None:
        super().__init__()
        attention = f"{name}.attention.self"
        query, key, value = (Linear(transplant, f"{attention}.{part}") for part in ("query", "key", "value"))
        self.attention = SelfAttention(query, key, value, config.num_attention_heads)
        self.attention_output = DenseNorm(transplant, f"{name}.attention.output")
        self.inner = [
            FeedForward(transplant, f"{name}.ffn.{index}", config.hidden_act)
            for index in range(config.num_feedforward_networks - 1)
        ]
        self.last = FeedForward(transplant, name, config.hidden_act)
        self.bottleneck_in: DenseNorm | Linear | None = None
        self.bottleneck_attention: DenseNorm | Linear | None = None
        self.shares_input = config.use_bottleneck_attention
        if config.use_bottleneck:
            self.bottleneck_in = bottleneck(transplant, f"{name}.bottleneck.input")
            self.bottleneck_out = DenseNorm(transplant, f"{name}.output.bottleneck")
            if config.key_query_shared_bottleneck and not config.use_bottleneck_attention:
                self.bottleneck_attention = bottleneck(transplant, f"{name}.bottleneck.attention")

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """[1, S, H] -> [1, S, H]."""
        query_key, value, residual = self._enter(hidden)
        x = self.attention_output(self.attention(query_key, query_key, value, mask), residual)
        for network in [*self.inner, self.last]:
            x = network(x)
        return x if self.bottleneck_in is None else self.bottleneck_out(x, hidden)

    def _enter(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the attention: (query and key, value, residual)."""
        if self.bottleneck_in is None:
            return hidden, hidden, hidden
        narrow = self.bottleneck_in(hidden)
        if self.shares_input:
            return narrow, narrow, narrow
        query_key = hidden if self.bottleneck_attention is None else self.bottleneck_attention(hidden)
        return query_key, hidden, narrow

"""BERT, RoBERTa and DistilBERT encoders: post-norm transformers that differ in names and in their embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf
from transformers import PretrainedConfig

from pocketbert.export.tf_layers import FixedRows, Linear, Lookup, SelfAttention, Tensor, activation, norm
from pocketbert.export.transplant import Transplant


@dataclass(frozen=True)
class LayerNames:
    """Names of a layer's torch modules, below the layer's own name."""

    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    intermediate: str
    output: str
    output_norm: str


BERT = LayerNames(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    intermediate="intermediate.dense",
    output="output.dense",
    output_norm="output.LayerNorm",
)
DISTILBERT = LayerNames(
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    intermediate="ffn.lin1",
    output="ffn.lin2",
    output_norm="output_layer_norm",
)


class Embeddings(tf.Module):
    """Word + position + token type, then layer normalisation."""

    def __init__(self, transplant: Transplant, name: str, length: int, first_position: int, token_types: int) -> None:
        super().__init__()
        self.words = Lookup(transplant, f"{name}.word_embeddings")
        self.positions = FixedRows(transplant, f"{name}.position_embeddings", first_position, length)
        self.token_types: Lookup | FixedRows | None = None
        if token_types > 1:
            self.token_types = Lookup(transplant, f"{name}.token_type_embeddings")
        elif token_types == 1:
            self.token_types = FixedRows(transplant, f"{name}.token_type_embeddings", 0, 1)
        self.norm = norm(transplant, f"{name}.LayerNorm")

    def __call__(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """int32 [1, S] -> float32 [1, S, H]."""
        return self.norm(add_positions(self.words(input_ids), token_type_ids, self.positions, self.token_types))


def add_positions(
    words: Tensor, token_type_ids: Tensor | None, positions: FixedRows, token_types: Lookup | FixedRows | None
) -> Tensor:
    """Add the position and token type embeddings to [1, S, H]."""
    if token_types is not None:
        words = words + (token_types(token_type_ids) if isinstance(token_types, Lookup) else token_types())
    return words + positions()


class Layer(tf.Module):
    """Attention and a feed-forward network, each added to its input and normalised."""

    def __init__(self, transplant: Transplant, name: str, names: LayerNames, heads: int, hidden_act: object) -> None:
        super().__init__()
        query, key, value = (Linear(transplant, f"{name}.{part}") for part in (names.query, names.key, names.value))
        self.attention = SelfAttention(query, key, value, heads)
        self.attention_output = Linear(transplant, f"{name}.{names.attention_output}")
        self.attention_norm = norm(transplant, f"{name}.{names.attention_norm}")
        self.intermediate = Linear(transplant, f"{name}.{names.intermediate}")
        self.activation = activation(hidden_act)
        self.output = Linear(transplant, f"{name}.{names.output}")
        self.output_norm = norm(transplant, f"{name}.{names.output_norm}")

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """[1, S, H] -> [1, S, H]."""
        x = self.attention_norm(self.attention_output(self.attention(x, x, x, mask)) + x)
        return self.output_norm(self.output(self.activation(self.intermediate(x))) + x)


class Encoder(tf.Module):
    """Embeddings and layers, one after another; each family builds its own."""

    embeddings: Callable[[Tensor, Tensor | None], Tensor]
    layers: Sequence[Callable[[Tensor, Tensor], Tensor]]

    def __call__(self, input_ids: Tensor, mask: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Ids int32 [1, S] and an additive mask [1, 1, 1, S] -> hidden states [1, S, H]."""
        return self.hidden_states(input_ids, mask, token_type_ids)[-1]

    def hidden_states(self, input_ids: Tensor, mask: Tensor, token_type_ids: Tensor | None) -> list[Tensor]:
        """The outputs [1, S, H] of the embeddings and of each layer."""
        states = [self.embeddings(input_ids, token_type_ids)]
        for layer in self.layers:
            states.append(layer(states[-1], mask))
        return states


class BertEncoder(Encoder):
    """BertModel and RobertaModel without their pooling layer."""

    def __init__(self, transplant: Transplant, name: str, config: PretrainedConfig, length: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(
            transplant, f"{name}.embeddings", length, first_position(config), config.type_vocab_size
        )
        self.layers = [
            Layer(transplant, f"{name}.encoder.layer.{index}", BERT, config.num_attention_heads, config.hidden_act)
            for index in range(config.num_hidden_layers)
        ]


class DistilBertEncoder(Encoder):
    """DistilBertModel: BERT without token types, under other names."""

    def __init__(self, transplant: Transplant, name: str, config: PretrainedConfig, length: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(transplant, f"{name}.embeddings", length, first_position=0, token_types=0)
        self.layers = [
            Layer(transplant, f"{name}.transformer.layer.{index}", DISTILBERT, config.n_heads, config.activation)
            for index in range(config.n_layers)
        ]


def first_position(config: PretrainedConfig) -> int:
    """Row of the position table that belongs to the first token.

    RoBERTa numbers its tokens from pad_token_id + 1 and gives all padding the row pad_token_id; padding is
    masked, so with padding on the right the row numbers of the tokens are fixed.
    """
    return config.pad_token_id + 1 if config.model_type in ROBERTA_TYPES else 0


ROBERTA_TYPES = ("roberta", "xlm-roberta", "camembert")

"""BERT, RoBERTa and DistilBERT encoders: post-norm transformers that differ in names and in their embeddings."""

from collections.abc import Callable, Sequence

import tensorflow as tf
from transformers import PretrainedConfig

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
from pocketbert.numerics.fusion_bert import BERT, DISTILBERT, LayerNames
from pocketbert.numerics.fusion_plan import first_position


class Embeddings(tf.Module):
    """Word + position + token type, then layer normalisation; the sum comes from the host where it looks them up."""

    def __init__(self, transplant: Transplant, name: str, config: PretrainedConfig, length: int, flat: bool) -> None:
        super().__init__()
        self.words: Lookup | HostRows
        self.positions: FixedRows | None = None
        self.token_types: Lookup | FixedRows | None = None
        if transplant.has(HOST_WORDS):
            self.words = HostRows(transplant, HOST_WORDS, HOST_POSITIONS)
        else:
            self.words = Lookup(transplant, f"{name}.word_embeddings", flat=flat)
            self.positions = FixedRows(transplant, f"{name}.position_embeddings", first_position(config), length)
            self.token_types = token_types(transplant, f"{name}.token_type_embeddings", flat)
        self.norm = norm(transplant, f"{name}.LayerNorm")

    def __call__(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """int32 [1, S] each, or float [1, S, H] from the host -> float32 [1, S, H]."""
        return self.norm(add_positions(self.words(input_ids), token_type_ids, self.positions, self.token_types))


def token_types(transplant: Transplant, name: str, flat: bool) -> Lookup | FixedRows | None:
    """The token types' table; None where the model has none, or a fusion has added the only one elsewhere."""
    if not transplant.has(f"{name}.weight"):
        return None
    if len(transplant.weights.value(f"{name}.weight")) == 1:
        return FixedRows(transplant, name, 0, 1)
    return Lookup(transplant, name, flat=flat)


def add_positions(
    words: Tensor, token_type_ids: Tensor | None, positions: FixedRows | None, types: Lookup | FixedRows | None
) -> Tensor:
    """Add the position and token type embeddings to [1, S, H]."""
    if types is not None:
        words = words + (types(token_type_ids) if isinstance(types, Lookup) else types())
    return words if positions is None else words + positions()


class Layer(tf.Module):
    """Attention and a feed-forward network, each added to its input and normalised."""

    def __init__(self, transplant: Transplant, name: str, names: LayerNames, heads: int, hidden_act: object) -> None:
        super().__init__()
        parts = Projections(*(f"{name}.{part}" for part in (names.query, names.key, names.value, names.product)))
        self.attention = SelfAttention(transplant, parts, heads)
        self.attention_output = Linear(transplant, f"{name}.{names.attention_output}")
        self.attention_norm = norm(transplant, f"{name}.{names.attention_norm}")
        self.intermediate = Linear(transplant, f"{name}.{names.intermediate}")
        self.activation = activation(hidden_act, transplant.variants.gelu, portable=transplant.portable)
        self.output = Linear(transplant, f"{name}.{names.output}")
        self.output_norm = norm(transplant, f"{name}.{names.output_norm}")

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """[1, S, H] -> [1, S, H]."""
        x = self.attention_norm(self.attention_output(self.attention(x, x, mask)) + x)
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

    def __init__(
        self, transplant: Transplant, name: str, config: PretrainedConfig, length: int, *, flat: bool = True
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(transplant, f"{name}.embeddings", config, length, flat)
        self.layers = [
            Layer(transplant, f"{name}.encoder.layer.{index}", BERT, config.num_attention_heads, config.hidden_act)
            for index in range(config.num_hidden_layers)
        ]


class DistilBertEncoder(Encoder):
    """DistilBertModel: BERT without token types, under other names."""

    def __init__(
        self, transplant: Transplant, name: str, config: PretrainedConfig, length: int, *, flat: bool = True
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(transplant, f"{name}.embeddings", config, length, flat)
        self.layers = [
            Layer(transplant, f"{name}.transformer.layer.{index}", DISTILBERT, config.n_heads, config.activation)
            for index in range(config.n_layers)
        ]

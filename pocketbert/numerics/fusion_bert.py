"""Fusions of BERT, RoBERTa and DistilBERT."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pocketbert.numerics.fusion import Basis, Weights

# A gain this much smaller than the largest one is not divided by.
GAIN_RATIO_MIN = 1e-3


@dataclass(frozen=True)
class LayerNames:
    """Names of a layer's torch modules, below the layer's own name; `product` is ours, of the three together."""

    query: str
    key: str
    value: str
    product: str
    attention_output: str
    attention_norm: str
    intermediate: str
    output: str
    output_norm: str


BERT = LayerNames(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    product="attention.self.query_key_value",
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
    product="attention.qkv_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    intermediate="ffn.lin1",
    output="ffn.lin2",
    output_norm="output_layer_norm",
)


def fuse_bert(weights: Weights, config: Any) -> None:
    """Apply the fusions that `weights` names to an encoder of this family and its head."""
    distil = config.model_type == "distilbert"
    names, part = (DISTILBERT, "transformer") if distil else (BERT, "encoder")
    count = config.n_layers if distil else config.num_hidden_layers
    layers = [f"encoder.{part}.layer.{index}" for index in range(count)]
    if "embedding_sums" in weights.fusions:
        sum_embeddings(weights)
    if "query_scale" in weights.fusions:
        for layer in layers:
            scale_queries(weights, f"{layer}.{names.query}", config)
    if "layer_norm" in weights.fusions:
        _carry_shifts(weights, layers, names)
        _gain_into_head(weights, f"{layers[-1]}.{names.output_norm}", f"layer.{count - 1}")
    if "one_product" in weights.fusions:
        for layer in layers:
            parts = [f"{layer}.{part}" for part in (names.query, names.key, names.value)]
            weights.stack(f"{layer}.{names.product}", parts, "one_product")


def sum_embeddings(weights: Weights) -> None:
    """The only token type, added to every position."""
    positions, types = (f"encoder.embeddings.{kind}_embeddings.weight" for kind in ("position", "token_type"))
    if types in weights and len(weights.raw(types)) == 1:
        weights.put(positions, weights.exact(positions) + weights.exact(types), "embedding_sums", [types])
        weights.drop(types)


def scale_queries(weights: Weights, query: str, config: Any) -> None:
    """1/sqrt(head size) into the weights of the queries (Vaswani et al. 2017, equation 1)."""
    heads = config.n_heads if config.model_type == "distilbert" else config.num_attention_heads
    size = weights.raw(f"{query}.weight").shape[0] // heads
    for kind in ("weight", "bias"):
        weights.put(f"{query}.{kind}", weights.exact(f"{query}.{kind}") / np.sqrt(size), "query_scale")


def _carry_shifts(weights: Weights, layers: list[str], names: LayerNames) -> None:
    """Take the shift of each layer norm out of the residual stream and into the biases of what reads it.

    A norm's output x = n g + c goes into linear layers, W x + b = W (n g) + (b + W c), and into a sum,
    (A + b) + x = (A + b + c) + n g. The last norm keeps its shift, which a row without tokens must not get.
    """
    norm, state = "encoder.embeddings.LayerNorm", "embeddings"
    for index, layer in enumerate(layers):
        parts = [f"{layer}.{part}" for part in (names.query, names.key, names.value)]
        _carry_shift(weights, norm, parts, f"{layer}.{names.attention_output}", state)
        middle = f"{layer}.{names.attention_norm}"
        _carry_shift(weights, middle, [f"{layer}.{names.intermediate}"], f"{layer}.{names.output}")
        norm, state = f"{layer}.{names.output_norm}", f"layer.{index}"


def _carry_shift(weights: Weights, norm: str, readers: list[str], added_to: str, state: str | None = None) -> None:
    source = f"{norm}.bias"
    shift = weights.exact(source)
    for reader in readers:
        weights.add_input_shift(reader, shift, "layer_norm", source)
    weights.shift_output(added_to, shift, "layer_norm", [source])
    weights.drop(source)
    if state:
        weights.bases[state] = Basis(shift=shift)


def _gain_into_head(weights: Weights, norm: str, state: str) -> None:
    """The last norm's gain into the head: W (n g + c) = (W g) (n + c/g), through a pooling that is linear.

    The distributive law: one product by the gain, in the weights, instead of one a token.
    """
    source, head = f"{norm}.weight", "head.linear_0"
    gain = weights.exact(source)
    if np.abs(gain).min() < GAIN_RATIO_MIN * np.abs(gain).max():
        return
    weights.scale_input(head, gain, "layer_norm", [source])
    weights.put(f"{norm}.bias", weights.exact(f"{norm}.bias") / gain, "layer_norm", [source])
    weights.drop(source)
    weights.bases[state] = weights.bases["pooling"] = Basis(scale=gain)

"""Fusions of MobileBERT (Sun et al. 2020, arXiv:2004.02984)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pocketbert.numerics.fusion import Basis, Exact, Weights
from pocketbert.numerics.fusion_bert import scale_queries, sum_embeddings

# A NoNorm whose gains, alone or multiplied up along the stream, leave these bounds stays in the graph: its channels
# could not be divided by them in half precision.
GAIN_MIN, GAIN_MAX = 2.0**-8, 2.0**8
# Our name of the product of all linear layers that read a layer's input: residual, queries with keys, values.
ENTRY = "entry"


def fuse_mobilebert(weights: Weights, config: Any) -> None:
    """Apply the fusions that `weights` names to an encoder of this family and its head."""
    layers = [f"encoder.encoder.layer.{index}" for index in range(config.num_hidden_layers)]
    if "embedding_sums" in weights.fusions:
        sum_embeddings(weights)
    if "query_scale" in weights.fusions:
        for layer in layers:
            scale_queries(weights, f"{layer}.attention.self.query", config)
    if config.normalization_type == "no_norm":
        norms = _NoNorms(weights, config)
        # The converter would fold the norms behind the bottlenecks' linear layers unasked; so it is on record.
        norms.carry(layers) if "no_norm" in weights.fusions else norms.fold_entries(layers)
    if "layer_norm" in weights.fusions and config.normalization_type == "layer_norm":
        for layer in layers:
            _norm_into_queries_and_keys(weights, layer, config)
    if "one_product" in weights.fusions:
        for layer in layers:
            _one_product(weights, layer, config)
    if "trigrams" in weights.fusions and config.trigram_input:
        _convolve_trigrams(weights)


def has_attention_bottleneck(config: Any) -> bool:
    """Whether queries and keys read a bottleneck of their own."""
    return bool(config.use_bottleneck and config.key_query_shared_bottleneck and not config.use_bottleneck_attention)


@dataclass(frozen=True)
class _Stream:
    """A residual stream x = scale * y [H], of which the graph holds y; `sources` are the parameters in the scale."""

    scale: Exact
    sources: tuple[str, ...] = ()

    @property
    def moved(self) -> bool:
        """Whether the graph holds anything but the model's own values."""
        return not bool(np.all(self.scale == 1.0))


class _NoNorms:
    """Carries every NoNorm along its stream as a change of basis, by the product of the gains so far.

    A NoNorm behind a sum, (A + x) g + c with A = W a + b, is (W a + b + c/g) + x, times g: the shift goes into the
    bias, and the gain into the basis, by which the linear layers that write to the stream divide and those that read
    it multiply.
    """

    def __init__(self, weights: Weights, config: Any) -> None:
        self._weights, self._config = weights, config

    def carry(self, layers: list[str]) -> None:
        """The whole encoder, and the head, which reads the last state."""
        stream = self._embeddings()
        self._basis("embeddings", stream)
        for index, layer in enumerate(layers):
            stream = self._layer(layer, stream)
            self._basis(f"layer.{index}", stream)
        self._basis("pooling", stream)
        self._read("head.linear_0", stream)

    def fold_entries(self, layers: list[str]) -> None:
        """Only the norms right behind a linear layer."""
        for layer in layers:
            for entry in self._entries(layer):
                self._fold_entry(entry)

    def _entries(self, layer: str) -> list[str]:
        parts = ["input"] if self._config.use_bottleneck else []
        parts += ["attention"] if has_attention_bottleneck(self._config) else []
        return [f"{layer}.bottleneck.{part}" for part in parts]

    def _basis(self, state: str, stream: _Stream) -> None:
        if stream.moved:
            self._weights.bases[state] = Basis(scale=stream.scale)

    def _embeddings(self) -> _Stream:
        """The positions take the shift: they are added last and have no other reader."""
        weights, names = self._weights, _norm("encoder.embeddings")
        gain, shift = (weights.exact(name) for name in names)
        if not _divisible(gain):
            return _Stream(np.ones_like(gain))
        positions = "encoder.embeddings.position_embeddings.weight"
        weights.put(positions, weights.exact(positions) + shift / gain, "no_norm", names)
        weights.drop(*names)
        return _Stream(gain, names)

    def _layer(self, layer: str, outer: _Stream) -> _Stream:
        """Fuse a layer; returns the stream of its output."""
        config, attention = self._config, f"{layer}.attention.self"
        readers = [] if config.use_bottleneck_attention else _parts(attention)
        inner = outer
        if config.use_bottleneck:
            inner = _Stream(np.ones(config.intra_bottleneck_size))
            readers = readers[2:] if has_attention_bottleneck(config) else readers
            for entry in self._entries(layer):
                self._read(f"{entry}.dense", outer)
                self._fold_entry(entry)
        for reader in readers:
            self._read(reader, outer)
        inner = self._write(f"{layer}.attention.output", inner)
        for network in (*(f"{layer}.ffn.{i}" for i in range(config.num_feedforward_networks - 1)), layer):
            self._read(f"{network}.intermediate.dense", inner)
            inner = self._write(f"{network}.output", inner)
        if not config.use_bottleneck:
            return inner
        self._read(f"{layer}.output.bottleneck.dense", inner)
        return self._write(f"{layer}.output.bottleneck", outer)

    def _fold_entry(self, entry: str) -> None:
        """A NoNorm right behind a linear layer: (W x + b) g + c = (g W) x + (g b + c)."""
        weights, dense, names = self._weights, f"{entry}.dense", _norm(entry)
        gain, shift = (weights.exact(name) for name in names)
        weights.put(f"{dense}.weight", weights.exact(f"{dense}.weight") * gain[:, None], "no_norm", names[:1])
        weights.put(f"{dense}.bias", weights.exact(f"{dense}.bias") * gain + shift, "no_norm", names)
        weights.drop(*names)

    def _read(self, linear: str, stream: _Stream) -> None:
        if stream.moved:
            self._weights.scale_input(linear, stream.scale, "no_norm", stream.sources)

    def _write(self, part: str, stream: _Stream) -> _Stream:
        """A linear layer added to a stream and the NoNorm behind the sum; returns the stream behind that."""
        weights, dense, names = self._weights, f"{part}.dense", _norm(part)
        gain, shift = (weights.exact(name) for name in names)
        vanishes = _divisible(gain) and _divisible(gain * stream.scale)
        if vanishes:
            weights.shift_output(dense, shift / gain, "no_norm", names)
        if stream.moved:
            weights.scale_output(dense, stream.scale, "no_norm", stream.sources)
        if vanishes:
            weights.drop(*names)
            return _Stream(gain * stream.scale, (*stream.sources, *names))
        # This norm stays, and brings the stream back to the model's own basis.
        if stream.moved:
            weights.put(names[0], gain * stream.scale, "no_norm", stream.sources)
        return _Stream(np.ones_like(gain))


def _norm(part: str) -> tuple[str, str]:
    return f"{part}.LayerNorm.weight", f"{part}.LayerNorm.bias"


def _divisible(gain: Exact) -> bool:
    size = np.abs(gain)
    return bool(size.min() >= GAIN_MIN and size.max() <= GAIN_MAX)


def _one_product(weights: Weights, layer: str, config: Any) -> None:
    """Queries, keys and values as one product; where queries and keys read a bottleneck of their own, two.

    The first is of all that reads the layer's input: what enters the bottlenecks, and the values. To multiply the
    bottleneck into queries and keys, Q (B h + d) + b, would save one more and cost 4 % more multiply-adds.
    """
    attention, bottleneck = f"{layer}.attention.self", f"{layer}.bottleneck"
    if not has_attention_bottleneck(config):
        weights.stack(f"{attention}.query_key_value", _parts(attention), "one_product")
        return
    weights.stack(f"{attention}.query_key", [f"{attention}.query", f"{attention}.key"], "one_product")
    # A norm that is left behind the bottlenecks reads a product of its own.
    if config.normalization_type == "no_norm":
        entries = [f"{bottleneck}.input.dense", f"{bottleneck}.attention.dense", f"{attention}.value"]
        weights.stack(f"{bottleneck}.{ENTRY}", entries, "one_product")


def _parts(attention: str) -> list[str]:
    return [f"{attention}.{part}" for part in ("query", "key", "value")]


def _norm_into_queries_and_keys(weights: Weights, layer: str, config: Any) -> None:
    """The gain and shift of a layer norm that only queries and keys read: W (n g + c) + b = (W g) n + (W c + b)."""
    if not has_attention_bottleneck(config):
        return
    gain, shift = names = _norm(f"{layer}.bottleneck.attention")
    for reader in _parts(f"{layer}.attention.self")[:2]:
        weights.add_input_shift(reader, weights.exact(shift), "layer_norm", shift)
        weights.scale_input(reader, weights.exact(gain), "layer_norm", [gain])
    weights.drop(*names)


def _convolve_trigrams(weights: Weights) -> None:
    """Next, same and previous word side by side, projected: a convolution of width 3, kernel [out, 1, 3, in].

    Tap 0 reads the previous position, which the model puts last.
    """
    source = "encoder.embeddings.embedding_transformation.weight"
    matrix = weights.exact(source)
    taps = np.stack(np.split(matrix, 3, axis=1)[::-1], axis=1)
    weights.put("encoder.embeddings.embedding_transformation.kernel", taps[:, None], "trigrams", [source])
    weights.drop(source)

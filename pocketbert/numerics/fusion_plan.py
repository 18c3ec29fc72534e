"""Which fusions there are, and a classifier's tensors after those that are asked for."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from pocketbert.numerics.fusion import HOST_POSITIONS, HOST_WORDS, Array, Weights
from pocketbert.numerics.fusion_bert import fuse_bert
from pocketbert.numerics.fusion_mobilebert import fuse_mobilebert

# Products in a sum from which on it is split by `split_sums`, and into how many parts.
LONG_SUM, SUM_PARTS = 256, 8
ROBERTA_TYPES = ("roberta", "xlm-roberta", "camembert")
_FAMILIES: dict[str, Callable[[Weights, Any], None]] = {
    "bert": fuse_bert,
    **dict.fromkeys(ROBERTA_TYPES, fuse_bert),
    "distilbert": fuse_bert,
    "mobilebert": fuse_mobilebert,
}


def first_position(config: Any) -> int:
    """Row of the position table that belongs to the first token.

    RoBERTa numbers its tokens from pad_token_id + 1 and gives all padding the row pad_token_id; padding is
    masked, so with padding on the right the row numbers of the tokens are fixed.
    """
    return config.pad_token_id + 1 if config.model_type in ROBERTA_TYPES else 0


def fuse_weights(
    state: Mapping[str, Array], config: Any, fusions: Collection[str], *, length: int, host_lookup: bool = False
) -> Weights:
    """The tensors of a graph of `length` tokens; `config` is the encoder's transformers configuration.

    With `host_lookup` the embedding tables become the host's: words [V, E], and positions with token types
    [types, length, H].
    """
    weights = Weights(state, fusions)
    _FAMILIES[config.model_type](weights, config)
    if "split_sums" in weights.fusions:
        _split_sums(weights)
    start = first_position(config)
    positions = "encoder.embeddings.position_embeddings.weight"
    used = weights.exact(positions)[start : start + length]
    weights.put(positions, used, f"rows[{start}:{start + length}]")
    if host_lookup:
        _hand_to_host(weights, positions)
    return weights


def _split_sums(weights: Weights) -> None:
    """The encoder's long sums in parts.

    A GPU in half precision adds one product after the other to a half-precision number; the error of a sum of n
    grows with the root of n, so that eight parts leave about a third of it.
    """
    for name in weights.names():
        linear, kind = name.rpartition(".")[::2]
        if kind == "weight" and ".layer." in name and f"{linear}.bias" in weights:
            shape = weights.exact(name).shape
            if len(shape) == 2 and shape[1] >= LONG_SUM and shape[1] % SUM_PARTS == 0:
                weights.split_sum(linear, SUM_PARTS, "split_sums")


def _hand_to_host(weights: Weights, positions: str) -> None:
    words, types = (f"encoder.embeddings.{kind}_embeddings.weight" for kind in ("word", "token_type"))
    rows = weights.exact(positions)[None]
    operands = [positions]
    if types in weights:
        rows = rows + weights.exact(types)[:, None]
        operands.append(types)
    weights.put(HOST_POSITIONS, rows, "host lookup", operands)
    weights.rename(words, HOST_WORDS, "host lookup")
    weights.drop(*operands)

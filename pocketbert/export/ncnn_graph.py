"""The classifier in a form that pnnx converts rightly and that ncnn's Vulkan layers compute."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation
from transformers.models.mobilebert.modeling_mobilebert import MobileBertEmbeddings, MobileBertSelfAttention

from pocketbert.errors import ExportError
from pocketbert.modeling.classifier import PocketBertClassifier

Encode = Callable[[Any, Tensor, Tensor, Tensor | None], Tensor]


class ErfGelu(nn.Module):
    """GELU(x) = x Phi(x) out of products and one exponential, with an error below 2e-7.

    ncnn's own GELU is the tanh approximation on Vulkan, wherever the model was trained with the exact one. Phi by
    the polynomial of Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        z = torch.abs(x) * math.sqrt(0.5)
        t = 1.0 / (1.0 + 0.3275911 * z)
        series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
        # x Phi(x) = max(x, 0) - |x| erfc(|x| / sqrt 2) / 2
        return torch.relu(x) - torch.abs(x) * (series * torch.exp(-(z * z))) * 0.5


class FusedAttention(nn.Module):
    """MobileBERT's attention by torch's fused product: ncnn has SDPA on Vulkan, and no MatMul."""

    def __init__(self, attention: MobileBertSelfAttention) -> None:
        super().__init__()
        self.query, self.key, self.value = attention.query, attention.key, attention.value
        self.heads, self.width = attention.num_attention_heads, attention.attention_head_size

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *_unused: object, **_also: object
    ) -> tuple[Tensor]:
        """[1, S, H] each and the additive mask [1, 1, S, S] -> [1, S, H]."""
        q, k, v = (self._split(layer(x)) for layer, x in ((self.query, query), (self.key, key), (self.value, value)))
        context = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return (context.transpose(1, 2).reshape(1, -1, self.heads * self.width),)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(1, -1, self.heads, self.width).transpose(1, 2)


class ShiftedTrigram(nn.Module):
    """MobileBERT's embeddings: the neighbours of a token by products with shift matrices.

    pnnx loses the axes of the crops and paddings that transformers has there, and the result is garbage.
    """

    def __init__(self, embeddings: Any) -> None:
        super().__init__()
        self.words, self.types = embeddings.word_embeddings, embeddings.token_type_embeddings
        self.positions = embeddings.position_embeddings
        self.norm = embeddings.LayerNorm
        dense, width = embeddings.embedding_transformation, embeddings.word_embeddings.embedding_dim
        parts = zip(dense.weight.split(width, dim=1), (False, True, False), strict=True)
        self.parts = nn.ModuleList(_linear(weight, dense.bias if biased else None) for weight, biased in parts)

    def forward(self, ids: Tensor, types: Tensor | None) -> Tensor:
        """int64 [1, S] each -> [1, S, H]."""
        length = ids.shape[1]
        words = self.words(ids).reshape(length, self.words.embedding_dim)
        after = torch.mm(torch.diag(torch.ones(length - 1), 1), words)
        before = torch.mm(torch.diag(torch.ones(length - 1), -1), words)
        hidden = self.parts[0](after) + self.parts[1](words) + self.parts[2](before)
        hidden = hidden + self.positions.weight[:length]
        hidden = hidden + (self.types.weight[0] if types is None else self.types(types).reshape(length, -1))
        return self.norm(hidden).reshape(1, length, -1)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer with a copy of `weight` [out, in]."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


class NcnnGraph(nn.Module):
    """Logits [1, C] of one row, with everything that depends on the mask alone prepared by the host.

    Inputs: ids int64 [1, S]; the additive mask float32 [1, 1, S, S], a row for each query (ncnn takes [1, 1, 1, S] too,
    and computes something else); pooling weights float32 [1, S]; token types int64 [1, S] where the model has them.
    """

    def __init__(self, model: PocketBertClassifier) -> None:
        super().__init__()
        model_type = model.config.encoder_config.model_type
        if model_type not in _FAMILIES:
            raise ExportError(
                f"encoders of type {model_type} have no ncnn graph", f"Use a model of type {', '.join(_FAMILIES)}."
            )
        self.encode = _FAMILIES[model_type]
        copied = copy.deepcopy(model).eval()
        _replace_modules(copied)
        self.encoder, self.head = copied.encoder, copied.head

    def forward(self, ids: Tensor, mask: Tensor, weights: Tensor, types: Tensor | None = None) -> Tensor:
        """float32 [1, C]."""
        hidden = self.encode(self.encoder, ids, mask, types)
        # mm: the only other product of two computed tensors that ncnn takes to Vulkan.
        return self.head(torch.mm(weights, hidden.reshape(hidden.shape[1], hidden.shape[2])))


def _replace_modules(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, GELUActivation) or (isinstance(child, nn.GELU) and child.approximate == "none"):
            setattr(module, name, ErfGelu())
        elif isinstance(child, MobileBertSelfAttention):
            setattr(module, name, FusedAttention(child))
        elif isinstance(child, MobileBertEmbeddings) and child.trigram_input:
            setattr(module, name, ShiftedTrigram(child))
        else:
            _replace_modules(child)


def _bert(encoder: Any, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
    return encoder.encoder(encoder.embeddings(ids, types), attention_mask=mask)[0]


def _distilbert(encoder: Any, ids: Tensor, mask: Tensor, _types: Tensor | None) -> Tensor:
    layers = encoder.config.n_layers
    return encoder.transformer(encoder.embeddings(ids), attn_mask=mask, head_mask=[None] * layers)[0]


def _mobilebert(encoder: Any, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
    layers = encoder.config.num_hidden_layers
    return encoder.encoder(encoder.embeddings(ids, types), attention_mask=mask, head_mask=[None] * layers)[0]


# RoBERTa computes its positions from the ids, in operators that ncnn has not.
_FAMILIES: dict[str, Encode] = {"bert": _bert, "distilbert": _distilbert, "mobilebert": _mobilebert}

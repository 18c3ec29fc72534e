"""A BERT masked-language model as a plain tf.Module of static shape, its weights transplanted like a classifier's."""

from dataclasses import dataclass
from typing import Any, cast

import tensorflow as tf
import torch
from transformers import PreTrainedModel

from pocketbert.errors import ExportError
from pocketbert.export.fill_mask import takes_token_types
from pocketbert.export.tf_bert import BertEncoder, Embeddings
from pocketbert.export.tf_classifier import check_encoder
from pocketbert.export.tf_layers import Linear, Lookup, Tensor, activation, norm, per_channel
from pocketbert.export.transplant import Transplant, Transplanted

_HEAD = "cls.predictions"
# The decoder's parameters are other names of these.
_TIED = {f"{_HEAD}.decoder.weight": "bert.embeddings.word_embeddings.weight", f"{_HEAD}.decoder.bias": f"{_HEAD}.bias"}


class MaskedLm(tf.Module):
    """Logits [1, S, V] of int32 ids, mask and, where the model has them, token types, each [1, S]."""

    def __init__(self, model: Any, transplant: Transplant, length: int, mask_value: float) -> None:
        super().__init__()
        config = model.encoder.config
        self.mask_value = mask_value
        self.encoder = BertEncoder(transplant, "bert", config, length)
        self.transform = Linear(transplant, f"{_HEAD}.transform.dense")
        self.activation = activation(config.hidden_act)
        self.norm = norm(transplant, f"{_HEAD}.transform.LayerNorm")
        self.bias = transplant.variable(f"{_HEAD}.bias")

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """int32 [1, S] each -> float32 [1, S, V]."""
        mask = tf.cast(attention_mask, tf.float32)
        additive = tf.reshape((1.0 - mask) * self.mask_value, [1, 1, 1, mask.shape[1]])
        hidden = self.encoder(input_ids, additive, token_type_ids)
        words = cast(Lookup, cast(Embeddings, self.encoder.embeddings).words).table
        transformed = self.norm(self.activation(self.transform(hidden)))
        return tf.matmul(transformed, words, transpose_b=True) + per_channel(self.bias)


@dataclass(frozen=True)
class TracedMaskedLm:
    """A traced graph, its weights proven equal to torch's; `module` keeps the variables alive."""

    module: MaskedLm
    function: Any
    transplanted: list[Transplanted]


class _Untied:
    """The model as `Transplant` reads it: every tensor under one name."""

    def __init__(self, model: PreTrainedModel) -> None:
        state = model.state_dict()
        self.encoder, self.get_submodule = model.bert, model.get_submodule
        self._state = {name: value for name, value in state.items() if name not in _TIED}
        for name, other in _TIED.items():
            if name in state and not torch.equal(state[name], state[other]):
                raise ExportError(f"{name} is not tied to {other}", "Export this model to ONNX.")

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers, without the tied names."""
        return self._state


def trace_masked_lm(model: PreTrainedModel, sequence_length: int, mask_value: float) -> TracedMaskedLm:
    """Build the graph for rows of exactly `sequence_length` tokens and prove its weights.

    Raises ExportError for a family other than BERT, ParamsError (length) and ProofError (weights).
    """
    if model.config.model_type != "bert":
        raise ExportError(
            f"masked-language models of type {model.config.model_type} have no TensorFlow graph", "Write an .onnx file."
        )
    untied: Any = _Untied(model)
    check_encoder(untied, sequence_length)
    transplant = Transplant(untied)
    module = MaskedLm(untied, transplant, sequence_length, mask_value)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if takes_token_types(model) else [])]
    inputs = {name: tf.TensorSpec([1, sequence_length], tf.int32, name=name) for name in names}

    @tf.function(autograph=False)
    def serve(**tensors: Tensor) -> dict[str, Tensor]:
        return {"logits": module(**tensors)}

    function = serve.get_concrete_function(**inputs)
    return TracedMaskedLm(module, function, transplant.prove(function.variables))

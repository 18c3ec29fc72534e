"""The whole classifier as a plain tf.Module of static shape: embeddings -> encoder -> pooling -> head."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from pocketbert.errors import ExportError, ParamsError
from pocketbert.export.tf_bert import ROBERTA_TYPES, BertEncoder, DistilBertEncoder, first_position
from pocketbert.export.tf_head import Head, pool
from pocketbert.export.tf_layers import Tensor
from pocketbert.export.tf_mobilebert import MobileBertEncoder
from pocketbert.export.transplant import Transplant, Transplanted
from pocketbert.modeling.classifier import PocketBertClassifier

# transformers' model_type -> our encoder. A family is added by writing its encoder and naming it here.
FAMILIES: dict[str, Callable[..., Any]] = {
    "bert": BertEncoder,
    **dict.fromkeys(ROBERTA_TYPES, BertEncoder),
    "distilbert": DistilBertEncoder,
    "mobilebert": MobileBertEncoder,
}


class Classifier(tf.Module):
    """Logits [1, C] of int32 ids, mask and, where the model has them, token types, each [1, S]."""

    def __init__(self, model: PocketBertClassifier, transplant: Transplant, length: int, mask_value: float) -> None:
        super().__init__()
        config = model.encoder.config
        self.mask_value, self.pooling = mask_value, model.config.pooling
        self.encoder = FAMILIES[config.model_type](transplant, "encoder", config, length)
        self.head = Head(transplant, "head")

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """int32 [1, S] each -> float32 [1, C]."""
        return self.states(input_ids, attention_mask, token_type_ids)[1][-1]

    def states(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The encoder's states, as `hidden_states` gives them, and the head's: pooled, ..., logits."""
        mask = tf.cast(attention_mask, tf.float32)
        additive = tf.reshape((1.0 - mask) * self.mask_value, [1, 1, 1, mask.shape[1]])
        hidden = self.encoder.hidden_states(input_ids, additive, token_type_ids)
        return hidden, self.head.states(pool(hidden[-1], mask, self.pooling))


@dataclass(frozen=True)
class TracedClassifier:
    """A traced graph, its weights proven equal to torch's; `module` keeps the variables alive."""

    module: Classifier
    function: Any
    transplanted: list[Transplanted]


def trace_classifier(model: PocketBertClassifier, sequence_length: int, mask_value: float) -> TracedClassifier:
    """Build the graph of `model` for rows of exactly `sequence_length` tokens and prove its weights.

    Raises ExportError (family or option without a counterpart), ParamsError (length over the model's limit)
    and ProofError (a parameter that is not in the graph exactly once, bit by bit).
    """
    check_encoder(model, sequence_length)
    transplant = Transplant(model)
    module = Classifier(model, transplant, sequence_length, mask_value)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if model.uses_token_types else [])]
    inputs = {name: tf.TensorSpec([1, sequence_length], tf.int32, name=name) for name in names}

    @tf.function(autograph=False)
    def serve(**tensors: Tensor) -> dict[str, Tensor]:
        return {"logits": module(**tensors)}

    function = serve.get_concrete_function(**inputs)
    return TracedClassifier(module, function, transplant.prove(function.variables))


def check_encoder(model: PocketBertClassifier, sequence_length: int) -> None:
    """Raise ExportError and ParamsError like `trace_classifier`; of `model` only its encoder is read."""
    config = model.encoder.config
    if config.model_type not in FAMILIES:
        raise ExportError(
            f"encoders of type {config.model_type} have no TensorFlow graph",
            f"Use a student of type {', '.join(FAMILIES)}, or the ONNX export; docs/conversion.md says how to add one.",
        )
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        raise ExportError(
            f"position_embedding_type {config.position_embedding_type} has no TensorFlow graph",
            "Use a model with absolute position embeddings, or the ONNX export.",
        )
    limit = config.max_position_embeddings - first_position(config)
    if sequence_length > limit:
        raise ParamsError(
            f"export_tflite.sequence_length = {sequence_length} is over the model's limit of {limit} tokens",
            f"Set export_tflite.sequence_length to {limit} or less.",
        )

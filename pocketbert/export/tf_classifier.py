"""The whole classifier as a plain tf.Module of static shape: embeddings -> encoder -> pooling -> head."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from pocketbert.errors import ExportError, ParamsError
from pocketbert.export.tf_bert import BertEncoder, DistilBertEncoder
from pocketbert.export.tf_head import Head, pool
from pocketbert.export.tf_layers import Tensor
from pocketbert.export.tf_mobilebert import MobileBertEncoder
from pocketbert.export.transplant import Transplant, Transplanted, parameters
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.numerics.fusion import HOST_POSITIONS, HOST_WORDS, Weights
from pocketbert.numerics.fusion_plan import ROBERTA_TYPES, first_position, fuse_weights
from pocketbert.params import GraphProfile, GraphVariants
from pocketbert.runtimes.host_lookup import POSITIONS_INPUT, SUM_INPUT, WORDS_INPUT

# transformers' model_type -> our encoder. A family is added by writing its encoder and naming it here.
FAMILIES: dict[str, Callable[..., Any]] = {
    "bert": BertEncoder,
    **dict.fromkeys(ROBERTA_TYPES, BertEncoder),
    "distilbert": DistilBertEncoder,
    "mobilebert": MobileBertEncoder,
}
# transformers' own mask, the smallest float32.
STOCK_MASK = -3.4028234663852886e38


class Classifier(tf.Module):
    """Logits [1, C] of a row's inputs, each [1, S, ...], by the names of `input_specs`."""

    def __init__(
        self, model: PocketBertClassifier, transplant: Transplant, length: int, mask_value: float, *, stock: bool
    ) -> None:
        super().__init__()
        config = model.encoder.config
        self.mask_value, self.pooling, self.stock = mask_value, model.config.pooling, stock
        self.length, self.dtype = length, transplant.dtype
        self.encoder = FAMILIES[config.model_type](transplant, "encoder", config, length, flat=not stock)
        self.head = Head(transplant, "head")
        self.input_specs = _input_specs(model, transplant.weights, length)

    def __call__(self, **inputs: Tensor) -> Tensor:
        """float32 [1, C]."""
        return self.states(**inputs)[1][-1]

    def states(self, **inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The encoder's states, as `hidden_states` gives them, and the head's: pooled, ..., logits."""
        mask = tf.cast(inputs["attention_mask"], self.dtype)
        additive = tf.reshape((1.0 - mask) * self.mask_value, [1, 1, 1, self.length])
        words = next(inputs[name] for name in ("input_ids", SUM_INPUT, WORDS_INPUT) if name in inputs)
        second = inputs.get("token_type_ids", inputs.get(POSITIONS_INPUT))
        hidden = self.encoder.hidden_states(words, additive, second)
        return hidden, self.head.states(pool(hidden[-1], mask, self.pooling, stock=self.stock))


def _input_specs(model: PocketBertClassifier, weights: Weights, length: int) -> dict[str, tf.TensorSpec]:
    """int32 ids, mask and, where the model has them, token types; of a graph whose tables the host has, floats."""
    if HOST_WORDS not in weights:
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if model.uses_token_types else [])]
        return {name: tf.TensorSpec([1, length], tf.int32, name=name) for name in names}
    shapes = {"attention_mask": [1, length]}
    # MobileBERT projects the words before it adds the positions.
    apart = model.encoder.config.model_type == "mobilebert"
    shapes[WORDS_INPUT if apart else SUM_INPUT] = [1, length, weights.width(HOST_WORDS)]
    if apart:
        shapes[POSITIONS_INPUT] = [1, length, weights.width(HOST_POSITIONS)]
    return {name: tf.TensorSpec(shape, tf.float32, name=name) for name, shape in shapes.items()}


@dataclass(frozen=True)
class TracedClassifier:
    """A traced graph, its tensors proven equal to the weights; `module` keeps the variables alive."""

    module: Classifier
    function: Any
    transplanted: list[Transplanted]
    weights: Weights


def build_classifier(
    model: PocketBertClassifier,
    sequence_length: int,
    mask_value: float,
    profile: GraphProfile = "delegate",
    fuse: Collection[str] = (),
    dtype: tf.DType = tf.float32,
    variants: GraphVariants | None = None,
) -> tuple[Classifier, Transplant]:
    """The graph's module, not traced; raises like `trace_classifier`."""
    check_encoder(model, sequence_length)
    stock, host = profile == "stock", profile == "embeddings"
    fusions = () if stock else fuse
    weights = fuse_weights(parameters(model), model.encoder.config, fusions, length=sequence_length, host_lookup=host)
    transplant = Transplant(model, weights, dtype, None if stock else variants, portable=host)
    mask = STOCK_MASK if stock else mask_value
    return Classifier(model, transplant, sequence_length, mask, stock=stock), transplant


def trace_classifier(
    model: PocketBertClassifier,
    sequence_length: int,
    mask_value: float,
    profile: GraphProfile = "delegate",
    fuse: Collection[str] = (),
    variants: GraphVariants | None = None,
) -> TracedClassifier:
    """Build the graph of `model` for rows of exactly `sequence_length` tokens and prove its weights.

    `stock` has transformers' own mask and is never fused. Raises ExportError (family or option without a counterpart),
    ParamsError (length over the model's limit) and ProofError (a tensor that is not in the graph exactly once, bit by
    bit).
    """
    module, transplant = build_classifier(model, sequence_length, mask_value, profile, fuse, variants=variants)

    @tf.function(autograph=False)
    def serve(**tensors: Tensor) -> dict[str, Tensor]:
        return {"logits": module(**tensors)}

    function = serve.get_concrete_function(**module.input_specs)
    return TracedClassifier(module, function, transplant.prove(function.variables), transplant.weights)


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

"""The classifier of every torch model that pocketbert trains: any transformers encoder, a pooling, a head."""

import inspect
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from pocketbert.errors import CheckpointError
from pocketbert.params import HeadParams

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


class PocketBertConfig(PretrainedConfig):
    """Configuration of `PocketBertClassifier`; `encoder` and `head` are the plain dictionaries of theirs."""

    model_type = "pocketbert"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        pooling: Literal["mean", "cls"] = "mean",
        head: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder or {"model_type": "bert"}
        self.pooling = pooling
        self.head = head or HeadParams().model_dump()

    @property
    def encoder_config(self) -> PretrainedConfig:
        """The encoder's own transformers configuration."""
        return AutoConfig.for_model(**self.encoder)

    @property
    def head_params(self) -> HeadParams:
        """The head's shape."""
        return HeadParams.model_validate(self.head)


class ClassifierHead(nn.Sequential):
    """`depth` linear layers, named linear_0..., with activation and dropout between them: [B, H] -> [B, C]."""

    def __init__(self, params: HeadParams, hidden_size: int, num_labels: int) -> None:
        super().__init__()
        width = params.width or hidden_size
        sizes = [hidden_size, *[width] * (params.depth - 1), num_labels]
        for index in range(params.depth):
            if index:
                self.add_module(f"activation_{index - 1}", ACTIVATIONS[params.activation]())
            self.add_module(f"dropout_{index}", nn.Dropout(params.dropout))
            self.add_module(f"linear_{index}", nn.Linear(sizes[index], sizes[index + 1]))


def pool(hidden: Tensor, attention_mask: Tensor, pooling: Literal["mean", "cls"]) -> Tensor:
    """Pool hidden states [B, S, H] into [B, H].

    The weights are normalised before the sum, so that fp16 never holds the sum of a whole row. A row without
    a single token pools to zero in either mode: its logits are the head's own, whatever a runtime's softmax
    makes of a fully masked row.
    """
    mask = attention_mask.to(hidden.dtype)
    if pooling == "cls":
        return hidden[:, 0] * mask[:, :1]
    weights = mask / mask.sum(dim=1, keepdim=True).clamp(min=1.0)
    return (hidden * weights.unsqueeze(-1)).sum(dim=1)


class PocketBertClassifier(PreTrainedModel):
    """encoder -> pooling -> head. Saved and loaded with save_pretrained and AutoModelForSequenceClassification."""

    config_class = PocketBertConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = False
    _supports_sdpa = True
    _supports_flash_attn = False

    def __init__(self, config: PocketBertConfig) -> None:
        super().__init__(config)
        encoder_config = config.encoder_config
        # None: the encoder takes sdpa where it has it; MobileBERT has not, and refuses to be told so.
        asked = config._attn_implementation
        encoder_config._attn_implementation = None if asked == "sdpa" else asked
        self.encoder = _build_encoder(encoder_config)
        self.head = ClassifierHead(config.head_params, encoder_config.hidden_size, config.num_labels)
        accepted = inspect.signature(self.encoder.forward).parameters
        self.uses_token_types = "token_type_ids" in accepted and getattr(encoder_config, "type_vocab_size", 0) > 1
        self.post_init()

    @property
    def max_tokens(self) -> int:
        """Longest input that the encoder has positions for (RoBERTa's first ones, up to its pad id, are taken)."""
        for name, module in self.encoder.named_modules():
            if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
                return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        return int(self.encoder.config.max_position_embeddings)

    def freeze_encoder(self) -> None:
        """Train the head only: the encoder gets no gradient, and runs without dropout from then on."""
        self.encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "PocketBertClassifier":
        """torch's train mode; a frozen encoder stays in eval mode."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.encoder.parameters()):
            self.encoder.eval()
        return self

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the head's linear layers; transformers gives the encoder's modules to the encoder's own method.

        As torch does, not with BERT's N(0, 0.02): with many classes a head learns markedly faster from it.
        """
        if isinstance(module, nn.Linear):
            module.reset_parameters()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,  # noqa: ARG002 (transformers passes it)
    ) -> SequenceClassifierOutput:
        """Logits [B, C] of ids and masks [B, S]; a loss too where labels ([B], or [B, C] of 0/1) are given."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": mask}
        if self.uses_token_types and token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        encoded = self.encoder(
            **inputs,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        logits = self.head(pool(encoded.last_hidden_state, mask, self.config.pooling))
        loss = None
        if labels is not None:
            multi_label = self.config.problem_type == "multi_label_classification"
            function = nn.functional.binary_cross_entropy_with_logits if multi_label else nn.functional.cross_entropy
            loss = function(logits, labels)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )


def _build_encoder(config: PretrainedConfig) -> PreTrainedModel:
    """A freshly initialised encoder, without transformers' own pooling layer where it has one."""
    return AutoModel.from_config(config, **without_pooler(encoder_class(config)))


def encoder_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """transformers' bare model of a configuration; raises CheckpointError where there is none."""
    try:
        return MODEL_MAPPING[type(config)]
    except KeyError as error:
        raise CheckpointError(
            f"transformers has no encoder of the type {config.model_type!r}",
            "Use a BERT, DistilBERT, MobileBERT or RoBERTa-style checkpoint.",
        ) from error


def without_pooler(kind: type[PreTrainedModel]) -> dict[str, bool]:
    """Argument that leaves out an encoder's own pooling layer, empty for those without one (DistilBERT)."""
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(kind.__init__).parameters else {}


def register() -> None:
    """Make transformers' auto classes (and so optimum) know the classifier; safe to call twice."""
    AutoConfig.register("pocketbert", PocketBertConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(PocketBertConfig, PocketBertClassifier, exist_ok=True)


register()

"""Putting encoder, pooling, head and labels together, and keeping the tokenizer that belongs to them."""

import copy
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from pocketbert.data.dataset import LabelSet
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import CheckpointError, ParamsError
from pocketbert.modeling.classifier import PocketBertClassifier, PocketBertConfig, encoder_class, without_pooler
from pocketbert.modeling.weights import SPARE_PARTS, check_loaded, first_line, quiet_loading
from pocketbert.params import HeadParams

Pooling = Literal["mean", "cls"]

# What a configuration says about the checkpoint that it came from and not about the encoder.
_ORIGIN_KEYS = (
    "_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "id2label", "label2id",
    "problem_type", "finetuning_task",
)  # fmt: skip


def encoder_dict(config: PretrainedConfig) -> dict[str, Any]:
    """An encoder's configuration as `PocketBertConfig.encoder` keeps it."""
    return {key: value for key, value in config.to_dict().items() if key not in _ORIGIN_KEYS}


def new_classifier(
    encoder: dict[str, Any], pooling: Pooling, head: HeadParams, labels: LabelSet
) -> PocketBertClassifier:
    """A classifier with fresh weights for the labels' classes."""
    config = PocketBertConfig(
        encoder=encoder,
        pooling=pooling,
        head=head.model_dump(),
        id2label=dict(enumerate(labels.names)),
        label2id={name: index for index, name in enumerate(labels.names)},
        problem_type=f"{labels.problem_type}_classification",
    )
    return PocketBertClassifier(config)


def with_eager_attention(model: PocketBertClassifier) -> PocketBertClassifier:
    """A copy of a classifier that can return its attention probabilities."""
    config = copy.deepcopy(model.config)
    config._attn_implementation = "eager"
    twin = PocketBertClassifier(config)
    twin.load_state_dict(model.state_dict())
    return twin


def label_names(config: PretrainedConfig) -> tuple[str, ...]:
    """A configuration's class names in the order of its logits."""
    return tuple(config.id2label[index] for index in range(config.num_labels))


def read_config(folder: Path) -> PretrainedConfig:
    """config.json of an encoder or a classifier; raises CheckpointError for what is no BERT-style encoder."""
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder}/config.json cannot be used: {first_line(error)}",
            "Use a BERT, DistilBERT, MobileBERT or RoBERTa-style checkpoint that transformers knows.",
        ) from error
    known = config.model_type == "pocketbert" or config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if not known or config.is_encoder_decoder:
        raise CheckpointError(
            f"{folder} holds a {config.model_type} model, which is no BERT-style encoder",
            "Use a BERT, DistilBERT, MobileBERT or RoBERTa-style checkpoint.",
        )
    return config


def load_encoder(folder: Path, config: PretrainedConfig) -> PreTrainedModel:
    """A checkpoint's bare encoder in fp32, without its task head; raises CheckpointError if it is not all there."""
    kind = encoder_class(config)
    try:
        with quiet_loading():
            encoder, info = kind.from_pretrained(
                str(folder), config=config, dtype=torch.float32, local_files_only=True, output_loading_info=True,
                # `check_loaded` names the tensor.
                ignore_mismatched_sizes=True,
                **without_pooler(kind),
            )  # fmt: skip
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder} cannot be loaded: {first_line(error)}", "Fetch or build the checkpoint again."
        ) from error
    check_loaded(folder, info, encoder, SPARE_PARTS)
    return encoder


def save_tokenizer(source: Path, output: Path) -> TextEncoder:
    """Write a checkpoint's tokenizer into `output` as tokenizer.json (made from vocab.txt where need be)."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(source), use_fast=True, local_files_only=True, trust_remote_code=False
        )
    # AutoTokenizer tells of a missing or damaged file in any of these ways.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise CheckpointError(
            f"the tokenizer in {source} cannot be loaded: {first_line(error)}",
            "The folder must hold tokenizer.json, or vocab.txt beside config.json.",
        ) from error
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"{source} has only a slow tokenizer ({type(tokenizer).__name__})",
            "Convert it to tokenizer.json with transformers' convert_slow_tokenizer.",
        )
    tokenizer.save_pretrained(str(output))
    return TextEncoder(output)


def check_fit(model: PocketBertClassifier, encoder: TextEncoder, max_length: int) -> None:
    """Refuse a length that the model has no positions for, and a tokenizer with ids beyond its vocabulary."""
    if max_length > model.max_tokens:
        raise ParamsError(
            f"max_length {max_length} is over the model's limit of {model.max_tokens} tokens",
            f"Set max_length to at most {model.max_tokens}.",
        )
    rows, known = encoder.vocabulary_size, model.encoder.get_input_embeddings().num_embeddings
    if rows > known:
        raise CheckpointError(
            f"the tokenizer has {rows} tokens and the model's vocabulary {known}",
            "Use the tokenizer that belongs to the model.",
        )

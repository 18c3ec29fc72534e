"""Weights that may be trusted: safetensors, or what torch's weights_only loader accepts; nothing missing."""

import json
import logging
import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from pocketbert.errors import CheckpointError

SAFE_WEIGHTS = "model.safetensors"
SAFE_INDEX = "model.safetensors.index.json"
PICKLED_WEIGHTS = "pytorch_model.bin"

# Parts of pre-training and task heads that an encoder does without; buffers that old checkpoints stored.
SPARE_PARTS = (
    "pooler.", "cls.", "lm_head.", "classifier.", "pre_classifier.", "qa_outputs.", "vocab_transform.",
    "vocab_layer_norm.", "vocab_projector.", "mlm_head.", "score.",
)  # fmt: skip
SPARE_BUFFERS = ("position_ids", "token_type_ids")


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights that `check_weights` would look at."""
    return any((folder / name).is_file() for name in (SAFE_WEIGHTS, SAFE_INDEX, PICKLED_WEIGHTS))


def check_weights(folder: Path) -> None:
    """Refuse weights that are missing, cut off, damaged or that would run code; raises CheckpointError."""
    if (folder / SAFE_WEIGHTS).is_file():
        _check_safetensors(folder / SAFE_WEIGHTS)
    elif (folder / SAFE_INDEX).is_file():
        for name in _shards(folder / SAFE_INDEX):
            _check_safetensors(folder / name)
    elif (folder / PICKLED_WEIGHTS).is_file():
        _check_pickled(folder / PICKLED_WEIGHTS)
    else:
        raise CheckpointError(
            f"{folder} holds no weights that can be read ({SAFE_WEIGHTS})",
            "Save the model with save_pretrained(..., safe_serialization=True).",
        )


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{index} is damaged", "Fetch or build the checkpoint again.") from error


def _check_safetensors(path: Path) -> None:
    try:
        # Opening compares the header with the file's size; no tensor is read.
        with safe_open(str(path), framework="pt") as file:
            empty = not list(file.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is cut off or damaged: {error}", "Fetch or build the checkpoint again."
        ) from error
    if empty:
        raise CheckpointError(f"{path} holds no tensor", "Fetch or build the checkpoint again.")


def _check_pickled(path: Path) -> None:
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is a pickle that would run code, and is refused",
            "Convert it where you trust it: load it with torch, then save_pretrained(..., safe_serialization=True).",
        ) from error
    except (OSError, EOFError, RuntimeError) as error:
        raise CheckpointError(f"{path} is cut off or damaged", "Fetch or build the checkpoint again.") from error


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' warnings of missing and spare tensors: `check_loaded` judges each of them."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_is_error)
    try:
        yield
    finally:
        logger.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def check_loaded(folder: Path, info: Mapping[str, Any], model: nn.Module, spare: Iterable[str] = ()) -> None:
    """Refuse a model that from_pretrained left partly random, or that holds NaN; raises CheckpointError.

    `info` is from_pretrained's loading info; `spare` names prefixes of tensors that the model does without.
    """
    prefixes = tuple(spare)
    missing = sorted(info["missing_keys"])
    mismatched = sorted(info["mismatched_keys"])
    left_over = sorted(key for key in info["unexpected_keys"] if not _is_spare(key, prefixes))
    for what, keys in (("lack", missing), ("have the wrong shape for", mismatched), ("do not belong:", left_over)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise CheckpointError(
                f"the weights in {folder} {what} {keys[0]}{more}",
                "Its config.json must describe the weights beside it; fetch or build the checkpoint again.",
            )
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise CheckpointError(
                f"the tensor {name} in {folder} holds NaN or infinity", "Fetch or build the checkpoint again."
            )


def first_line(error: Exception) -> str:
    """The first line of another library's error, or its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _is_spare(key: str, prefixes: tuple[str, ...]) -> bool:
    if key.rsplit(".", 1)[-1] in SPARE_BUFFERS:
        return True
    # A task model's keys may carry the name of its base model (bert.pooler.dense.weight).
    return key.startswith(prefixes) or key.partition(".")[2].startswith(prefixes) if prefixes else False

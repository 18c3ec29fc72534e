"""Masked-language models of any BERT family that transformers knows: loaded, and exported to ONNX."""

import inspect
from pathlib import Path

import onnx
from transformers import AutoModelForMaskedLM, PreTrainedModel

from pocketbert.errors import CheckpointError
from pocketbert.export.onnx import PocketBertOnnxConfig, to_onnx_as
from pocketbert.export.rewrites import replace_mask_value
from pocketbert.modeling.weights import SPARE_PARTS, check_loaded, check_weights, first_line, quiet_loading


def load_masked_lm(folder: Path) -> PreTrainedModel:
    """A masked-language model of save_pretrained, in fp32 and eval mode; raises CheckpointError.

    Not one tensor of its head may be missing: a random head would be no error of transformers.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} holds no config.json", "Name a folder of save_pretrained.")
    check_weights(folder)
    try:
        with quiet_loading():
            # Eager attention gives the graph that exporters mostly give: products, a mask that is added, a softmax.
            model, info = AutoModelForMaskedLM.from_pretrained(
                str(folder),
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                attn_implementation="eager",
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder} cannot be loaded as a masked-language model: {first_line(error)}",
            "Name the folder of a model such as BertForMaskedLM.",
        ) from error
    # A pre-training checkpoint holds a pooler and a next-sentence head besides.
    check_loaded(folder, info, model, SPARE_PARTS)
    loaded: PreTrainedModel = model.float().eval()
    return loaded


def masked_lm_to_onnx(model: PreTrainedModel, opset: int, mask_value: float | None) -> onnx.ModelProto:
    """int64 [batch, sequence] inputs by name -> logits [batch, sequence, vocabulary]; raises ExportError.

    `mask_value` takes the place of the stock mask (-3.4e38), which None keeps.
    """
    config = PocketBertOnnxConfig(model.config, task="fill-mask")
    config.uses_token_types = takes_token_types(model)
    exported = to_onnx_as(config, model, opset)
    if mask_value is not None:
        replace_mask_value(exported, mask_value)
    return exported


def takes_token_types(model: PreTrainedModel) -> bool:
    """Whether the model has token types to tell apart."""
    accepted = inspect.signature(model.forward).parameters
    return "token_type_ids" in accepted and getattr(model.config, "type_vocab_size", 0) > 1

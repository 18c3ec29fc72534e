"""Export of one folder to one file, outside the pipeline."""

from pathlib import Path
from typing import Any

import onnx

from pocketbert.data.tokenize import TOKENIZER_FILES, TextEncoder
from pocketbert.errors import ParamsError
from pocketbert.export.fill_mask import load_masked_lm, masked_lm_to_onnx
from pocketbert.export.onnx import to_onnx
from pocketbert.export.rewrites import replace_mask_value
from pocketbert.export.task import TASKS, which_task
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.numerics.fusion import Weights
from pocketbert.numerics.fusion_bases import write_bases

# transformers' own mask, the smallest float32.
STOCK_MASK = -3.4028234663852886e38


def export_file(
    folder: Path, output: Path, task: str, mask_value: float | None, opset: int = 17, sequence_length: int = 128
) -> str:
    """Write `output` and return what was done, for people; `mask_value` None keeps the stock mask.

    Raises ParamsError for an impossible task or file name, CheckpointError, ExportError and ProofError.
    """
    if output.suffix not in (".onnx", ".tflite"):
        raise ParamsError(f"{output} is no .onnx or .tflite file", "Name one that ends so with --output.")
    chosen = which_task(folder) if task == "auto" else task
    if chosen not in TASKS:
        raise ParamsError(f"there is no task {chosen!r}", f"Known: {', '.join(TASKS)}.")
    if output.suffix == ".onnx":
        content, shape = build(folder, chosen, mask_value, opset).SerializeToString(), f"opset {opset}"
        weights = None
    else:
        content, weights = build_tflite(
            folder, chosen, STOCK_MASK if mask_value is None else mask_value, sequence_length
        )
        shape = f"{sequence_length} tokens"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(content)
    if output.suffix == ".tflite":
        write_bases(weights, output)
    mask = "the stock mask" if mask_value is None else f"the mask {mask_value:g}"
    said = f"{output}: {chosen}, {shape}, {mask}, {len(content):,} bytes"
    beside = output.parent
    if (folder / "tokenizer.json").is_file() and not any((beside / name).exists() for name in TOKENIZER_FILES):
        TextEncoder(folder).copy_to(beside)
        said += f"\ntokenizer: copied into {beside}"
    return said


def build(folder: Path, task: str, mask_value: float | None, opset: int) -> onnx.ModelProto:
    """The ONNX model of a folder in memory; raises like `export_file`."""
    if task == "fill-mask":
        return masked_lm_to_onnx(load_masked_lm(folder), opset, mask_value)
    model = to_onnx(load_classifier(folder), opset)
    if mask_value is not None:
        replace_mask_value(model, mask_value)
    return model


def build_tflite(folder: Path, task: str, mask_value: float, sequence_length: int) -> tuple[bytes, Weights | None]:
    """The .tflite file of a folder, by our own TensorFlow graph, and its fused weights; raises like `export_file`."""
    from pocketbert.export.tflite import to_flatbuffer, trace

    if task == "text-classification":
        fused = trace(load_classifier(folder), sequence_length, mask_value)
        return to_flatbuffer(fused), fused.weights
    model = load_masked_lm(folder)
    from pocketbert.export.tf_masked_lm import trace_masked_lm

    traced: Any = trace_masked_lm(model, sequence_length, mask_value)
    return to_flatbuffer(traced), None

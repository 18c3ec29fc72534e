"""TFLite recipes, by ai-edge-quantizer, named as it names them (w = weights, a = activations)."""

import difflib
import re
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import QuantGranularity, TFLOperationName
from ai_edge_quantizer.quantizer import Quantizer
from ai_edge_quantizer.recipe_manager import RecipeManager

from pocketbert.errors import ParamsError
from pocketbert.quantize.activations import keeping_activations, tflite_ranges
from pocketbert.quantize.calibration import CalibrationRows
from pocketbert.quantize.flatbuffer import Op, float_ops, table_widths, tables_to_embedding_lookup
from pocketbert.quantize.options import (
    INT4_TABLE_BLOCK,
    RecipeOptions,
    TfliteDynamicInt4Options,
    TfliteStaticOptions,
)
from pocketbert.quantize.patterns import matching
from pocketbert.quantize.ranges import Range

_ALL, _CONNECTED = TFLOperationName.ALL_SUPPORTED, TFLOperationName.FULLY_CONNECTED
_LOOKUP = TFLOperationName.EMBEDDING_LOOKUP


def fp16(source: Path, target: Path, options: RecipeOptions, rows: CalibrationRows | None) -> dict[str, Any]:
    """Weights stored in fp16 and dequantized to fp32 when the model is loaded (a GPU computes in fp16 anyway)."""
    del rows
    manager = RecipeManager()
    manager.add_weight_only_config(".*", _ALL, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    return _apply(source, target, options, manager)


def weight_only_wi8_afp32(
    source: Path, target: Path, options: RecipeOptions, rows: CalibrationRows | None
) -> dict[str, Any]:
    """Weights stored in int8, one scale a channel, dequantized to fp32: small, as fast as fp32."""
    del rows
    manager = RecipeManager()
    manager.add_weight_only_config(".*", _ALL, 8)
    return _apply(source, target, options, manager)


def weight_only_wi4_afp32(
    source: Path, target: Path, options: RecipeOptions, rows: CalibrationRows | None
) -> dict[str, Any]:
    """Weights of fully connected ops stored in int4, one scale a channel, dequantized at every run: small and slow."""
    del rows
    manager = RecipeManager()
    manager.add_weight_only_config(".*", _ALL, 8)
    manager.add_weight_only_config(".*", _CONNECTED, 4)
    return _apply(source, target, options, manager)


def dynamic_wi8_afp32(
    source: Path, target: Path, options: RecipeOptions, rows: CalibrationRows | None
) -> dict[str, Any]:
    """Weights in int8, one scale a channel; inputs of fully connected ops quantized at run time, a scale a row."""
    del rows
    manager = RecipeManager()
    manager.add_dynamic_config(".*", _ALL, 8)
    return _apply(source, target, options, manager)


def dynamic_wi4_afp32(
    source: Path, target: Path, options: TfliteDynamicInt4Options, rows: CalibrationRows | None
) -> dict[str, Any]:
    """Weights of fully connected ops in int4; their inputs quantized to int8 at run time, one scale a row."""
    del rows
    manager = RecipeManager()
    manager.add_dynamic_config(".*", _ALL, 8)
    manager.add_dynamic_config(".*", _CONNECTED, 4, granularity=_granularity(options.block_size))
    return _apply(source, target, options, manager)


def static_wi8_ai8(
    source: Path, target: Path, options: TfliteStaticOptions, rows: CalibrationRows | None
) -> dict[str, Any]:
    """Inputs and outputs of `operations` in int8 with calibrated scales; everything else computes in float32.

    An op with an activation of extreme crest factor, and the last one (the classifier), is quantized dynamically.
    The model's inputs and outputs keep their types.
    """
    if rows is None:
        raise ValueError("static_wi8_ai8 needs calibration rows")
    model = source.read_bytes()
    manager = RecipeManager()
    operations = _operations(options, model)
    for operation in map(_operation, operations):
        manager.add_static_config(".*", operation, 8, 8)
    for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        manager.add_quantization_config(".*", end, None, AlgorithmName.NO_QUANTIZE)
    chosen = [op for op in float_ops(model) if {op.kind, "*"} & set(operations) and op.activations]
    tensors = sorted({index for op in chosen for index, _ in op.activations})
    ranges = tflite_ranges(model, tensors, rows, options)
    dynamic = _dynamic_outputs(chosen, ranges, options.crest_factor_max)
    for name in dynamic:
        manager.add_dynamic_config(f"^{re.escape(name)};$", _ALL, 8)
    names = {index: name for op in chosen for index, name in op.activations}
    calibration = {names[index]: _min_max(measured) for index, measured in ranges.items()}
    record = _apply(source, target, options, manager, calibration)
    figures = {names[i]: [r.minimum, r.maximum, round(r.crest_factor, 2)] for i, r in sorted(ranges.items())}
    return record | {"dynamic_instead": dynamic, "ranges_min_max_crest": figures}


def _operations(options: TfliteStaticOptions, model: bytes) -> list[str]:
    """The options' operations; in a graph whose linear layers are convolutions (export_tflite.variants), those."""
    kinds = {op.kind for op in float_ops(model)}
    convolved = "FULLY_CONNECTED" not in kinds and "CONV_2D" in kinds
    return ["CONV_2D" if convolved and name == "FULLY_CONNECTED" else name for name in options.operations]


def _dynamic_outputs(ops: list[Op], ranges: dict[int, Range], crest_factor_max: float) -> list[str]:
    """Output names of the ops that int8 activations would hurt; the last op computes the logits."""
    return [
        op.outputs[0][1]
        for op in ops
        if op is ops[-1] or any(ranges[index].crest_factor > crest_factor_max for index, _ in op.activations)
    ]


def _min_max(measured: Range) -> dict[str, Any]:
    """A range as ai-edge-quantizer's statistics of a tensor with one scale."""
    return {
        "min": np.array([[measured.minimum]], np.float32),
        "max": np.array([[measured.maximum]], np.float32),
    }


def _apply(
    source: Path, target: Path, options: RecipeOptions, manager: RecipeManager, calibration: Any = None
) -> dict[str, Any]:
    """Quantize `source` by the manager's recipe and the options that all recipes share; return it as applied."""
    model, lookups = source.read_bytes(), 0
    scopes = ["".join(f"{name};" for _, name in op.outputs) for op in float_ops(model) if op.outputs]
    matching(options.patterns, scopes, "op's output tensors")
    if options.embeddings != "float":
        model, lookups = tables_to_embedding_lookup(model)
    _add_tables(manager, options, model)
    for pattern in options.patterns:
        manager.add_quantization_config(pattern, _ALL, None, AlgorithmName.NO_QUANTIZE)
    recipe = manager.get_quantization_recipe()
    with keeping_activations():
        result = Quantizer(bytearray(model), recipe).quantize(
            calibration, enable_progress_bar=False, enable_progress_report=False
        )
    target.write_bytes(bytes(result.quantized_model))
    return {"function": "ai_edge_quantizer.quantizer.Quantizer", "recipe": recipe, "embedding_lookups": lookups}


def _add_tables(manager: RecipeManager, options: RecipeOptions, model: bytes) -> None:
    """Say how the tables are stored; EMBEDDING_LOOKUP reads int8 and int4 without unpacking the whole table."""
    if options.embeddings == "float":
        manager.add_quantization_config(".*", _LOOKUP, None, AlgorithmName.NO_QUANTIZE)
    elif options.embeddings == "fp16":
        manager.add_weight_only_config(".*", _LOOKUP, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    elif options.embeddings == "int4_row":
        manager.add_dynamic_config(".*", _LOOKUP, 4)
    # Blocks have to divide the rows.
    elif options.embeddings == "int8" or any(width % INT4_TABLE_BLOCK for width in table_widths(model)):
        manager.add_dynamic_config(".*", _LOOKUP, 8)
    else:
        manager.add_dynamic_config(".*", _LOOKUP, 4, granularity=_granularity(INT4_TABLE_BLOCK))


def _granularity(block_size: int) -> QuantGranularity:
    return QuantGranularity(f"BLOCKWISE_{block_size}") if block_size else QuantGranularity.CHANNELWISE


def _operation(name: str) -> TFLOperationName:
    try:
        return TFLOperationName(name)
    except ValueError as error:
        known = [operation.value for operation in TFLOperationName]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        raise ParamsError(
            f"static_wi8_ai8 knows no operation {name!r}", f"Did you mean {near[0]!r}?" if near else f"Known: {known}."
        ) from error

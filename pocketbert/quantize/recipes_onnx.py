"""ONNX recipes, by ONNX Runtime's own quantization tools."""

import logging
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pocketbert.quantize.activations import onnx_ranges
from pocketbert.quantize.calibration import CalibrationRows
from pocketbert.quantize.onnx_graph import lookups, products, with_matmuls
from pocketbert.quantize.onnx_matmul import quantize_matmuls
from pocketbert.quantize.onnx_tables import quantize_tables
from pocketbert.quantize.options import (
    OnnxDynamicInt8Options,
    OnnxFp16Options,
    OnnxStaticOptions,
    OnnxWeightOnlyOptions,
    RecipeOptions,
)
from pocketbert.quantize.patterns import matching
from pocketbert.quantize.ranges import Range


def fp16(source: Path, target: Path, options: OnnxFp16Options, rows: CalibrationRows | None) -> dict[str, Any]:
    """Weights and computation in fp16."""
    del rows
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = onnx.load(source)
    excluded = _excluded(model, options)
    if options.embeddings == "float":
        excluded |= {node.name for node in lookups(model)}
    kept = sorted({*DEFAULT_OP_BLOCK_LIST, *options.keep_fp32_ops})
    halved = convert_float_to_float16(
        model, keep_io_types=options.keep_io_types, op_block_list=kept, node_block_list=sorted(excluded)
    )
    _drop_twins(halved)
    # They are in fp16 already.
    changed = 0 if options.embeddings == "fp16" else quantize_tables(halved, options.embeddings, excluded)
    onnx.save(halved, target)
    function = "onnxruntime.transformers.float16.convert_float_to_float16"
    return {"function": function, "op_block_list": kept, "embedding_lookups": changed, "excluded": sorted(excluded)}


def dynamic_int8(
    source: Path, target: Path, options: OnnxDynamicInt8Options, rows: CalibrationRows | None
) -> dict[str, Any]:
    """Products with weight matrices in int8; activations quantized at run time, one scale a tensor."""
    del rows
    model, excluded = _load(source, options)
    quantized = _dynamic(model, options.per_channel, options.weight_type, options.reduce_range, exclude=excluded)
    return _save(quantized, target, options, excluded) | {"function": "onnxruntime.quantization.quantize_dynamic"}


def static_int8(source: Path, target: Path, options: OnnxStaticOptions, rows: CalibrationRows | None) -> dict[str, Any]:
    """Products with weight matrices in int8 on activations with calibrated scales (QDQ); the rest in float32.

    A product whose input has an extreme crest factor, and the last one (the classifier), is quantized dynamically.
    """
    if rows is None:
        raise ValueError("static_int8 needs calibration rows")
    model, excluded = _load(source, options)
    values = [name for node in products(model) for name in _calibrated(node, options)]
    ranges = onnx_ranges(model, values, rows, options)
    chosen = [node for node in products(model) if node.name not in excluded]
    limit = options.crest_factor_max
    dynamic = [
        node.name
        for node in chosen
        if node is chosen[-1] or any(ranges[name].crest_factor > limit for name in _calibrated(node, options))
    ]
    static = [node.name for node in chosen if node.name not in dynamic]
    if dynamic:
        model = _dynamic(model, options.per_channel, "QInt8", include=dynamic)
    if static:
        model = _static(model, options, ranges, static)
    figures = {name: [r.minimum, r.maximum, round(r.crest_factor, 2)] for name, r in ranges.items()}
    done = {"function": "onnxruntime.quantization.qdq_quantizer.QDQQuantizer", "dynamic_instead": dynamic}
    return _save(model, target, options, excluded) | done | {"ranges_min_max_crest": figures}


def weight_only_int8(
    source: Path, target: Path, options: OnnxWeightOnlyOptions, rows: CalibrationRows | None
) -> dict[str, Any]:
    """Weights in int8 by blocks (MatMulNBits)."""
    del rows
    return _weight_only(source, target, options, 8)


def weight_only_int4(
    source: Path, target: Path, options: OnnxWeightOnlyOptions, rows: CalibrationRows | None
) -> dict[str, Any]:
    """Weights in int4 by blocks (MatMulNBits)."""
    del rows
    return _weight_only(source, target, options, 4)


def _weight_only(source: Path, target: Path, options: OnnxWeightOnlyOptions, bits: int) -> dict[str, Any]:
    model, excluded = _load(source, options)
    quantized = quantize_matmuls(model, bits, options, excluded)
    return _save(model, target, options, excluded) | {"operator": "MatMulNBits", "quantized": quantized}


def _save(model: onnx.ModelProto, target: Path, options: RecipeOptions, excluded: Collection[str]) -> dict[str, Any]:
    changed = quantize_tables(model, options.embeddings, excluded)
    onnx.save(model, target)
    return {"embedding_lookups": changed, "excluded": sorted(excluded)}


def _load(source: Path, options: RecipeOptions) -> tuple[onnx.ModelProto, set[str]]:
    """The model with every Gemm as MatMul and Add, and the names of the nodes that stay in float."""
    model = onnx.load(source)
    excluded = _excluded(model, options)
    return with_matmuls(model), excluded | {f"{name}_{op}" for name in excluded for op in ("MatMul", "Add")}


def _excluded(model: onnx.ModelProto, options: RecipeOptions) -> set[str]:
    return matching(options.patterns, [node.name for node in model.graph.node], "node of the ONNX graph")


def _drop_twins(model: onnx.ModelProto) -> None:
    """Remove repeated casts: the converter adds one for each reader of a value at the border of excluded nodes."""
    kept, seen = [], set()
    for node in model.graph.node:
        if node.op_type != "Cast" or node.output[0] not in seen:
            kept.append(node)
        seen.update(node.output)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _calibrated(node: onnx.NodeProto, options: OnnxStaticOptions) -> list[str]:
    return [node.input[0], *(node.output if options.quantize_outputs else ())]


def _dynamic(
    model: onnx.ModelProto,
    per_channel: bool,
    weight_type: str,
    reduce_range: bool = False,
    *,
    include: Collection[str] | None = None,
    exclude: Collection[str] = (),
) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="pocketbert-") as scratch, _quiet():
        # Shape inference; the graph's optimization is left to the session that runs the model.
        prepared, target = Path(scratch, "prepared.onnx"), Path(scratch, "quantized.onnx")
        quant_pre_process(model, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantize_dynamic(
            prepared,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=per_channel,
            reduce_range=reduce_range,
            weight_type=QuantType[weight_type],
            nodes_to_quantize=None if include is None else sorted(include),
            nodes_to_exclude=sorted(exclude),
        )
        return onnx.load(target)


def _static(
    model: onnx.ModelProto, options: OnnxStaticOptions, ranges: dict[str, Range], nodes: list[str]
) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    measured = {
        name: TensorData(lowest=np.float32(found.minimum), highest=np.float32(found.maximum))
        for name, found in ranges.items()
    }
    quantizer = QDQQuantizer(
        model,
        options.per_channel,
        False,
        QuantType.QInt8,
        QuantType[options.activation_type],
        TensorsData(CalibrationMethod.MinMax, measured),
        nodes,
        [],
        ["MatMul"],
        {"OpTypesToExcludeOutputQuantization": [] if options.quantize_outputs else ["MatMul"]},
    )
    with _quiet():
        quantizer.quantize_model()
    return quantizer.model.model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantizers' hints in the root log ("please consider pre-processing"), which is done or not meant."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)

"""ONNX recipes, by ONNX Runtime's own quantization tools."""

import tempfile
from pathlib import Path
from typing import Any

from pocketbert.quantize.calibration import CalibrationRows
from pocketbert.quantize.recipes import OnnxDynamicInt8Options, OnnxFp16Options


def fp16(source: Path, target: Path, options: OnnxFp16Options, rows: CalibrationRows | None) -> dict[str, Any]:
    """Weights and computation in fp16."""
    del rows
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    kept = sorted({*DEFAULT_OP_BLOCK_LIST, *options.keep_fp32_ops})
    model = convert_float_to_float16(
        onnx.load(source),
        keep_io_types=options.keep_io_types,
        op_block_list=kept,
        node_block_list=list(options.keep_fp32_nodes),
    )
    onnx.save(model, target)
    return {"function": "onnxruntime.transformers.float16.convert_float_to_float16", "op_block_list": kept}


def dynamic_int8(
    source: Path, target: Path, options: OnnxDynamicInt8Options, rows: CalibrationRows | None
) -> dict[str, Any]:
    """Weights in int8; activations quantized at run time. Embedding tables (Gather) get one scale a table."""
    del rows
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="pocketbert-") as scratch:
        # Shape inference; the graph's optimization is left to the session that runs the model.
        prepared = Path(scratch, source.name)
        quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantize_dynamic(
            prepared,
            target,
            op_types_to_quantize=list(options.operations),
            per_channel=options.per_channel,
            reduce_range=options.reduce_range,
            weight_type=QuantType[options.weight_type],
            nodes_to_exclude=list(options.exclude_nodes),
        )
    return {"function": "onnxruntime.quantization.quantize_dynamic"}

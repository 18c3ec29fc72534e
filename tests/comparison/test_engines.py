from pathlib import Path

import numpy as np
import onnx as onnx_format
import pytest

from pocketbert.artifacts import Artifact
from pocketbert.comparison.compare import compare_files
from pocketbert.comparison.engines import open_engine
from pocketbert.errors import DeviceError
from tests.inspection.conftest import edit_tflite, rename_op
from tests.runtimes.conftest import copy_artifact


def quantize_model(path: Path) -> Path:
    """A .tflite file that turns int8 into int8: one QUANTIZE from scale 0.5, zero 3 to scale 0.25, zero -4."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, scale: float, zero: int) -> schema.TensorT:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, [1, 4], schema.TensorType.INT8, 0
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [scale], [zero]
        return made

    operator, code, graph, model = schema.OperatorT(), schema.OperatorCodeT(), schema.SubGraphT(), schema.ModelT()
    operator.inputs, operator.outputs, operator.opcodeIndex = [0], [1], 0
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.QUANTIZE
    code.version = 2
    graph.tensors = [tensor("in", 0.5, 3), tensor("out", 0.25, -4)]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def test_quantized_outputs_are_dequantized(tmp_path: Path) -> None:
    engine = open_engine(quantize_model(tmp_path / "q.tflite"))
    stored = np.array([[3, 5, -1, 13]], dtype=np.int8)
    (output,) = engine.run([stored])
    # 0.5 * (stored - 3), exactly representable at scale 0.25.
    assert output.tolist() == [[0.0, 1.0, -2.0, 5.0]]


def test_a_custom_op_is_one_clear_error(tflite: Artifact, tmp_path: Path) -> None:
    path = edit_tflite(tflite.model_path, tmp_path / "x.tflite", lambda m: rename_op(m, "GELU", custom="FancyGelu"))
    with pytest.raises(DeviceError, match=r"x\.tflite cannot be loaded: .*FancyGelu.* `pocketbert inspect` names"):
        open_engine(path)


def test_decisions_of_a_multi_label_task_are_sets(
    student: Artifact, onnx: Artifact, rows_csv: Path, tmp_path: Path
) -> None:
    shifted = copy_artifact(onnx, tmp_path / "shifted")
    model = onnx_format.load(shifted.model_path)
    bias = next(t for t in model.graph.initializer if t.name == "head.linear_1.bias")
    values = onnx_format.numpy_helper.to_array(bias) + np.float32(100)
    bias.CopyFrom(onnx_format.numpy_helper.from_array(values, bias.name))
    onnx_format.save(model, shifted.model_path)
    several = copy_artifact(shifted, tmp_path / "several", problem_type="multi_label")
    # Every logit 100 higher: the same arg max, but every class positive.
    assert compare_files(student.folder, shifted.folder, rows_csv, rows=24).agreement.all_rows == 1.0
    assert compare_files(student.folder, several.folder, rows_csv, rows=24).agreement.all_rows == 0.0

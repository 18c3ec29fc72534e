"""Activations of a model over calibration rows, and the ranges that they take."""

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from pocketbert.quantize.calibration import CalibrationRows
from pocketbert.quantize.options import StaticOptions
from pocketbert.quantize.ranges import Range, RangeCollector

if TYPE_CHECKING:
    from onnx import ModelProto

SIGNATURE = "serving_default"


def tflite_ranges(
    model: bytes, tensors: Iterable[int], rows: CalibrationRows, options: StaticOptions
) -> dict[int, Range]:
    """The range of each float activation (index in the first subgraph) over the rows' real tokens.

    Padded positions are left out: nothing reads them, and their values would widen the ranges.
    """
    wanted = tuple(tensors)

    def measure() -> dict[str, Range]:
        collector = RangeCollector.of(options, rows.clip)
        with keeping_activations():
            # One thread: the last bits of the sums must not depend on the machine's cores.
            interpreter: Any = Interpreter(model_content=model, num_threads=1, experimental_preserve_all_tensors=True)
        runner = interpreter.get_signature_runner(SIGNATURE)
        details = runner.get_input_details()
        for row in range(len(rows)):
            runner(**{name: rows.inputs[name][row : row + 1].astype(d["dtype"]) for name, d in details.items()})
            mask = rows.inputs["attention_mask"][row]
            for index in wanted:
                values = real_positions(interpreter.get_tensor(index), int(mask.sum()), len(mask))
                collector.update(str(index), values)
        return collector.ranges()

    ranges = rows.measured_once((hashlib.sha256(model).digest(), wanted, options.ranges), measure)
    return {int(name): found for name, found in ranges.items()}


def onnx_ranges(
    model: "ModelProto", tensors: Iterable[str], rows: CalibrationRows, options: StaticOptions
) -> dict[str, Range]:
    """The range of each named float value over the rows' real tokens: every row runs at its own length."""
    wanted = tuple(dict.fromkeys(tensors))

    def measure() -> dict[str, Range]:
        collector = RangeCollector.of(options, rows.clip)
        session = _exposing(model, wanted)
        kinds = {value.name: np.int32 if "int32" in value.type else np.int64 for value in session.get_inputs()}
        for row in range(len(rows)):
            tokens = int(rows.inputs["attention_mask"][row].sum())
            feed = {name: rows.inputs[name][row : row + 1, :tokens].astype(kind) for name, kind in kinds.items()}
            for name, values in zip(wanted, session.run(wanted, feed), strict=True):
                collector.update(name, values)
        return collector.ranges()

    digest = hashlib.sha256(model.SerializeToString(deterministic=True)).digest()
    return rows.measured_once((digest, wanted, options.ranges), measure)


def _exposing(model: "ModelProto", values: Iterable[str]) -> Any:
    """A session of a copy of the model that gives these values out."""
    import onnx
    import onnxruntime

    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    stated = {value.name for value in (*exposed.graph.input, *exposed.graph.output)}
    exposed.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in values if name not in stated
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])


@contextmanager
def keeping_activations() -> Iterator[None]:
    """Without LiteRT's warning that keeping every activation takes memory: here that is what it is for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
        yield


def real_positions(values: NDArray[np.float32], tokens: int, length: int) -> NDArray[np.float32]:
    """Cut the sequence axis (the first one of size `length`, the last axis never) to the first `tokens`."""
    for axis in range(values.ndim - 1):
        if values.shape[axis] == length:
            return values.take(range(tokens), axis=axis)
    return values

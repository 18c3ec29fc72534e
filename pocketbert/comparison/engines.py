"""ONNX Runtime and LiteRT over files of any origin: every input and output as it is, nothing assumed.

`pocketbert.runtimes` opens what pocketbert built and is strict; this runs one row at a time and is not timed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pocketbert.errors import DeviceError
from pocketbert.runtimes.base import TensorSpec

Array = NDArray[Any]


class RowEngine(Protocol):
    """A loaded file. Inputs are bound by position in `inputs`."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """All outputs for one row; integers of a quantized output are dequantized. Raises DeviceError."""
        ...


def open_engine(path: Path) -> RowEngine:
    """Load an .onnx or .tflite file on one CPU thread; raises DeviceError."""
    return OnnxEngine(path) if path.suffix == ".onnx" else LiteRtEngine(path)


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class OnnxEngine:
    """An ONNX file."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self._path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        # ONNX Runtime's exceptions share no base class of their own.
        except Exception as error:
            raise DeviceError(
                f"{path} cannot be loaded: {_first_lines(error)}", "`pocketbert inspect` says what the file asks for."
            ) from error
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self.inputs = tuple(_onnx_spec(i) for i in self._session.get_inputs())
        self.outputs = tuple(_onnx_spec(o) for o in self._session.get_outputs())

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """All outputs for one row."""
        feed = {spec.name: array for spec, array in zip(self.inputs, arrays, strict=True)}
        try:
            return [np.asarray(output) for output in self._session.run(None, feed)]
        except Exception as error:  # no base class either
            raise DeviceError(f"{self._path} cannot be run: {_first_lines(error)}", "Check its inputs.") from error


def _onnx_spec(value: Any) -> TensorSpec:
    dtype = value.type.removeprefix("tensor(").removesuffix(")")
    plain = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    return TensorSpec(value.name, plain, tuple(d if isinstance(d, int) else None for d in value.shape))


class LiteRtEngine:
    """A TFLite file, with or without signatures: tensors are found by index, names come from the signature."""

    def __init__(self, path: Path) -> None:
        from importlib.metadata import version

        from ai_edge_litert.interpreter import Interpreter

        self._path = path
        try:
            self._interpreter: Any = Interpreter(model_path=str(path), num_threads=1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise DeviceError(
                f"{path} cannot be loaded: {_first_lines(error)}",
                "`pocketbert inspect` names custom ops and ops that the runtime is too old for.",
            ) from error
        self.name = f"litert {version('ai-edge-litert')}"
        signatures: dict[str, Any] = self._interpreter._get_full_signature_list()
        signature: dict[str, Any] = next(iter(signatures.values()), {"inputs": {}, "outputs": {}})
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self.inputs = tuple(_tflite_spec(d, signature["inputs"]) for d in self._inputs)
        self.outputs = tuple(_tflite_spec(d, signature["outputs"]) for d in self._outputs)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """All outputs for one row; inputs of dynamic shape are resized first."""
        try:
            shapes = [array.shape for array in arrays]
            if shapes != [tuple(detail["shape"]) for detail in self._interpreter.get_input_details()]:
                for detail, shape in zip(self._inputs, shapes, strict=True):
                    self._interpreter.resize_tensor_input(detail["index"], shape)
                self._interpreter.allocate_tensors()
            for detail, array in zip(self._inputs, arrays, strict=True):
                self._interpreter.set_tensor(detail["index"], array)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise DeviceError(f"{self._path} cannot be run: {_first_lines(error)}", "Check its inputs.") from error
        return [_dequantized(self._interpreter.get_tensor(d["index"]), d) for d in self._outputs]


def _tflite_spec(detail: dict[str, Any], named: dict[str, int]) -> TensorSpec:
    name = next((name for name, index in named.items() if index == detail["index"]), detail["name"])
    shape = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    return TensorSpec(name, np.dtype(detail["dtype"]).name, tuple(int(n) if n >= 0 else None for n in shape))


def _dequantized(values: Array, detail: dict[str, Any]) -> Array:
    scale, zero = detail["quantization"]
    return (values.astype(np.float32) - zero) * scale if scale and values.dtype.kind in "iu" else values

"""Values inside an ONNX model: a copy in memory gets them as outputs; the file stays as it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.errors import DeviceError


class OnnxTap:
    """Runs copies of an .onnx file that give more of its values."""

    def __init__(self, path: Path) -> None:
        import onnx

        self._path = path
        self._model = onnx.load(path)

    def open(self, values: Sequence[str], *, exact: bool = True) -> "OnnxValues":
        """Load a copy with `values` as its outputs; optimized as the file itself is, or quickly where not `exact`.

        Raises DeviceError.
        """
        import onnx
        import onnxruntime

        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        given = {output.name for output in copy.graph.output}
        # Only the name: ONNX Runtime works types and shapes out by itself.
        copy.graph.output.extend(onnx.ValueInfoProto(name=value) for value in values if value not in given)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if not exact:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = onnxruntime.InferenceSession(
                copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        # ONNX Runtime's exceptions share no base class of their own.
        except Exception as error:
            raise _refused(self._path, error) from error
        return OnnxValues(self._path, session, tuple(values))


class OnnxValues:
    """A copy that is ready to run."""

    def __init__(self, path: Path, session: Any, values: tuple[str, ...]) -> None:
        self._path, self._session, self._values = path, session, values
        self._inputs = [i.name for i in session.get_inputs()]

    def run(self, arrays: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The values for inputs given in the file's order, as they are; raises DeviceError."""
        try:
            found = self._session.run(list(self._values), dict(zip(self._inputs, arrays, strict=True)))
        except Exception as error:  # no base class either
            raise _refused(self._path, error) from error
        return {name: np.asarray(value) for name, value in zip(self._values, found, strict=True)}


def _refused(path: Path, error: Exception) -> DeviceError:
    reason = " ".join(str(error).split())[:200]
    return DeviceError(f"the layers of {path} cannot be run: {reason}", "Compare its logits alone.")

"""Values inside a TFLite model: a copy in memory gets them as outputs; the file stays as it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.errors import DeviceError
from pocketbert.numerics.layers import Array
from pocketbert.runtimes.litert_runtime import invoke


class TfliteTap:
    """Runs copies of a .tflite file that give more of its values ("0.17" is tensor 17 of graph 0)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, values: Sequence[str], *, exact: bool = True) -> "TfliteValues":
        """Load a copy with `values` as outputs, run by XNNPACK as the file itself is; raises DeviceError.

        Where not `exact`, the file itself is run by LiteRT's plain kernels, which keep every value.
        """
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        positions = [int(value.split(".")[1]) for value in values]
        try:
            if exact:
                interpreter = Interpreter(model_content=self._with_outputs(positions), num_threads=1)
            else:
                interpreter = Interpreter(
                    model_path=str(self._path),
                    num_threads=1,
                    experimental_preserve_all_tensors=True,
                    experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                )
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise _refused(self._path, error) from error
        return TfliteValues(self._path, interpreter, dict(zip(values, positions, strict=True)))

    def _with_outputs(self, positions: Sequence[int]) -> bytes:
        # Not LiteRT's flatbuffer_utils: it writes weights byte by byte, 75 s for 35 MB.
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        content = self._path.read_bytes()
        model: Any = schema.ModelT.InitFromPackedBuf(content)
        for buffer in model.buffers:
            # Quantizers put large buffers behind the flatbuffer, where the copy would not find them.
            if buffer.offset > 1:
                buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
                buffer.offset = buffer.size = 0
        graph = model.subgraphs[0]
        graph.outputs = list(dict.fromkeys([*(int(i) for i in graph.outputs), *positions]))
        builder = flatbuffers.Builder(len(content) + 65536)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


class TfliteValues:
    """A copy that is ready to run."""

    def __init__(self, path: Path, interpreter: Any, positions: dict[str, int]) -> None:
        self._path, self._interpreter, self._positions = path, interpreter, positions
        self._details = {int(d["index"]): d for d in interpreter.get_tensor_details()}

    def run(self, arrays: Sequence[NDArray[Any]]) -> dict[str, Array]:
        """The values for inputs given in the file's order, dequantized, as float32; raises DeviceError."""
        try:
            invoke(self._interpreter, arrays)
            return {value: self._read(position) for value, position in self._positions.items()}
        except (ValueError, RuntimeError) as error:
            raise _refused(self._path, error) from error

    def _read(self, position: int) -> Array:
        stored = self._interpreter.get_tensor(position)
        scale, zero = self._details[position]["quantization"]
        if not np.issubdtype(stored.dtype, np.integer) or not scale:
            return np.asarray(stored, dtype=np.float32)
        return np.asarray((stored.astype(np.float64) - zero) * scale, dtype=np.float32)


def signature_names(path: Path) -> tuple[dict[str, str], list[str]]:
    """Value -> input name of the first signature of graph 0, if there is one; the output values in the file's order."""
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.Model.GetRootAs(path.read_bytes(), 0)
    named: dict[str, str] = {}
    if model.SignatureDefsLength() and model.SignatureDefs(0).SubgraphIndex() == 0:
        signature = model.SignatureDefs(0)
        entries = [signature.Inputs(i) for i in range(signature.InputsLength())]
        named = {f"0.{entry.TensorIndex()}": entry.Name().decode() for entry in entries}
    return named, [f"0.{int(i)}" for i in np.atleast_1d(model.Subgraphs(0).OutputsAsNumpy())]


def _refused(path: Path, error: Exception) -> DeviceError:
    reason = " ".join(str(error).split())[:200]
    return DeviceError(f"the layers of {path} cannot be run: {reason}", "Compare its logits alone.")

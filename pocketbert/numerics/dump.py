"""Every float tensor of an ONNX or TFLite file while it runs on a row; the file itself stays untouched."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.tokenize import Batch
from pocketbert.errors import DeviceError
from pocketbert.inspection.graph import Graph, ModelFile
from pocketbert.inspection.onnx_file import read_onnx
from pocketbert.inspection.tflite_file import read_tflite
from pocketbert.numerics.probes import Probes
from pocketbert.runtimes.base import TensorSpec
from pocketbert.runtimes.host_lookup import with_host_inputs
from pocketbert.runtimes.litert_runtime import invoke

Array = NDArray[Any]
# A row's kind and the arrays of the file's inputs, in their order.
Row = tuple[str, Sequence[Array]]
# Tensors of an ONNX file that are held at a time: at 512 tokens, BERT-base has 200 MB in so many.
TENSORS_AT_ONCE = 64
_ONNX_FLOATS = {"tensor(float)", "tensor(float16)", "tensor(double)"}
_PROTOBUF_LIMIT = 2**31 - 2**20


class TensorDump(Protocol):
    """A file that shows its insides. Values are named as in `graph`, `label` is their name in the file."""

    path: Path
    graph: Graph
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]

    def label(self, value: str) -> str:
        """The file's own name of a value."""
        ...

    def constants(self) -> Iterator[tuple[str, Array]]:
        """Float constants."""
        ...

    def run(self, arrays: Sequence[Array]) -> Iterator[tuple[str, Array]]:
        """Float tensors computed from `arrays`, one an input in the file's order; raises DeviceError."""
        ...


def open_dump(path: Path, wanted: Collection[str] | None = None) -> TensorDump:
    """Open an .onnx or .tflite file on one thread of the CPU, without graph optimizations or delegates.

    `wanted` restricts what `run` yields to these values. Raises CheckpointError for a damaged file, DeviceError.
    """
    return TfliteDump(path, wanted) if path.suffix == ".tflite" else OnnxDump(path, wanted)


def read_graph(path: Path) -> ModelFile:
    """The structure of an .onnx or .tflite file; raises CheckpointError for a damaged one."""
    return read_tflite(path) if path.suffix == ".tflite" else read_onnx(path)


def probe_rows(dump: TensorDump, probes: Probes, per_kind: int) -> Iterator[Row]:
    """The first rows of each kind for a file that pocketbert exported, each alone.

    A dynamic file gets all of them as wide as the longest, so that the shorter ones are padded.
    """
    fixed = next((spec.shape[1] for spec in dump.inputs if len(spec.shape) == 2), None)
    taken: dict[str, list[int]] = {}
    for index, kind in enumerate(probes.kinds):
        taken.setdefault(kind, []).append(index)
    chosen = [index for indices in taken.values() for index in indices[:per_kind]]
    inputs = probes.inputs if fixed is None else probes.padded(fixed)
    width = fixed or int(probes.lengths()[chosen].max())
    for index in chosen:
        batch = with_host_inputs(dump.path, {name: rows[index : index + 1, :width] for name, rows in inputs.items()})
        yield probes.kinds[index], bind_by_name(dump.inputs, batch)


def bind_by_name(inputs: Sequence[TensorSpec], batch: Batch) -> list[Array]:
    """Arrays for a file that pocketbert exported, whose inputs have the names of the batch."""
    return [batch[spec.name].astype(spec.dtype) for spec in inputs]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class OnnxDump:
    """A copy in memory with every tensor as an output."""

    def __init__(self, path: Path, wanted: Collection[str] | None) -> None:
        import onnx

        self.path, self._file = path, read_onnx(path)
        self.graph, self.inputs = self._file.graph, self._file.inputs
        self.outputs = tuple(spec.name for spec in self._file.outputs)
        self._model = onnx.load(path)
        self._session = self._open(onnx, wanted)
        floats = {output.name for output in self._session.get_outputs() if output.type in _ONNX_FLOATS}
        made = [value for node in self.graph.nodes for value in node.outputs]
        self._names = [name for name in made if name in floats and (wanted is None or name in wanted)]

    def _open(self, onnx: Any, wanted: Collection[str] | None) -> Any:
        import tempfile

        import onnxruntime

        exposed = onnx.ModelProto()
        exposed.CopyFrom(self._model)
        known = set(self.outputs)
        for node in self.graph.nodes:
            for value in node.outputs:
                if value and value not in known and (wanted is None or value in wanted):
                    exposed.graph.output.append(onnx.ValueInfoProto(name=value))
                    known.add(value)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        with tempfile.TemporaryDirectory(prefix="pocketbert-") as scratch:
            source: Any = Path(scratch, "exposed.onnx")
            if exposed.ByteSize() > _PROTOBUF_LIMIT:
                onnx.save(exposed, source, save_as_external_data=True)
            try:
                content = str(source) if source.exists() else exposed.SerializeToString()
                return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            # ONNX Runtime's exceptions share no base class of their own.
            except Exception as error:
                raise DeviceError(
                    f"{self.path} cannot be run with its tensors exposed: {_reason(error)}",
                    "`pocketbert inspect` says what the file asks for.",
                ) from error

    def label(self, value: str) -> str:
        """An ONNX value is its own name."""
        return value

    def constants(self) -> Iterator[tuple[str, Array]]:
        """Initializers and the tensors of Constant nodes."""
        from onnx import TensorProto, numpy_helper

        floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
        for tensor in self._model.graph.initializer:
            if tensor.data_type in floats:
                yield tensor.name, numpy_helper.to_array(tensor)
        for node in self._model.graph.node:
            for attribute in node.attribute if node.op_type == "Constant" else ():
                if attribute.HasField("t") and attribute.t.data_type in floats:
                    yield node.output[0], numpy_helper.to_array(attribute.t)

    def run(self, arrays: Sequence[Array]) -> Iterator[tuple[str, Array]]:
        """In the order of execution, `TENSORS_AT_ONCE` at a time."""
        feed = {spec.name: array for spec, array in zip(self.inputs, arrays, strict=True)}
        for start in range(0, len(self._names), TENSORS_AT_ONCE):
            names = self._names[start : start + TENSORS_AT_ONCE]
            try:
                yield from zip(names, self._session.run(names, feed), strict=True)
            except Exception as error:  # no base class either
                raise DeviceError(f"{self.path} cannot be run: {_reason(error)}", "Check its inputs.") from error


class TfliteDump:
    """LiteRT's interpreter with all tensors kept, on its plain kernels."""

    def __init__(self, path: Path, wanted: Collection[str] | None) -> None:
        import warnings

        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self.path, model = path, read_tflite(path)
        self.graph = model.graph
        try:
            with warnings.catch_warnings():
                # That keeping every tensor takes memory is known.
                warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
                self._interpreter: Any = Interpreter(
                    model_path=str(path),
                    num_threads=1,
                    experimental_preserve_all_tensors=True,
                    experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                )
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise DeviceError(
                f"{path} cannot be loaded: {_reason(error)}",
                "`pocketbert inspect` names custom ops and ops that the runtime is too old for.",
            ) from error
        self._details = {f"0.{d['index']}": d for d in self._interpreter.get_tensor_details()}
        self.inputs = _named_inputs(self._interpreter, model)
        self.outputs = tuple(f"0.{d['index']}" for d in self._interpreter.get_output_details())
        made = [value for node in self.graph.nodes for value in node.outputs]
        self._names = [v for v in made if self._is_float(v) and (wanted is None or v in wanted)]

    def _is_float(self, value: str) -> bool:
        # Values of other subgraphs (control flow) have no details.
        return value in self._details and np.issubdtype(self._details[value]["dtype"], np.floating)

    def label(self, value: str) -> str:
        """The converter's name of a tensor, with its number, as names may repeat."""
        name = self._details[value]["name"] if value in self._details else ""
        return f"{name} (tensor {value.removeprefix('0.')})"

    def constants(self) -> Iterator[tuple[str, Array]]:
        """Tensors that the file stores."""
        for value in self.graph.constants:
            if self._is_float(value):
                yield value, self._interpreter.get_tensor(self._details[value]["index"])

    def run(self, arrays: Sequence[Array]) -> Iterator[tuple[str, Array]]:
        """In the order of execution; dynamic inputs are resized."""
        try:
            invoke(self._interpreter, arrays)
        except (ValueError, RuntimeError) as error:
            raise DeviceError(f"{self.path} cannot be run: {_reason(error)}", "Check its inputs.") from error
        for value in self._names:
            yield value, self._interpreter.get_tensor(self._details[value]["index"])


def _named_inputs(interpreter: Any, model: ModelFile) -> tuple[TensorSpec, ...]:
    """The inputs in the file's order, under the names of the first signature where there is one."""
    signatures: dict[str, Any] = interpreter._get_full_signature_list()
    named = {index: name for name, index in next(iter(signatures.values()), {"inputs": {}})["inputs"].items()}
    details = interpreter.get_input_details()
    return tuple(
        TensorSpec(named.get(detail["index"], spec.name), spec.dtype, spec.shape)
        for detail, spec in zip(details, model.inputs, strict=True)
    )

"""A .tflite file as it lies on disk: its structure, and where the bytes of every constant are. No weight is read."""

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from pocketbert.errors import CheckpointError, ExportError
from pocketbert.inspection.tflite_file import check_identifier, naming_damage, op_kind

_BITS = {
    "INT4": 4, "UINT4": 4, "INT8": 8, "UINT8": 8, "BOOL": 8, "INT16": 16, "UINT16": 16, "FLOAT16": 16, "BFLOAT16": 16,
    "INT32": 32, "UINT32": 32, "FLOAT32": 32, "INT64": 64, "UINT64": 64, "FLOAT64": 64,
}  # fmt: skip
_TYPES = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}


@dataclass(frozen=True)
class Stored:
    """Where the bytes of a constant lie in the file."""

    offset: int
    size_bytes: int


@dataclass(frozen=True)
class Tensor:
    """A tensor of the first subgraph; `stored` is None where it is computed."""

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    stored: Stored | None

    @property
    def size_bytes(self) -> int:
        """Bytes of its values."""
        return math.ceil(math.prod(self.shape) * _BITS[self.dtype] / 8)


@dataclass(frozen=True)
class Operator:
    """An operator of the first subgraph; tensors by index, absent ones left out."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """The only subgraph of a file. `tree` is the file's own structure, by TFLite's schema."""

    path: Path
    size_bytes: int
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    # Tensor index -> name of the signature (of the tensor, in a file without one).
    inputs: dict[int, str]
    outputs: dict[int, str]
    tree: Any


def read_graph(path: Path) -> Graph:
    """Read a file's structure; raises CheckpointError (damaged) and ExportError (nothing that can be planned)."""
    with _mapped(path) as content, naming_damage(path, len(content)):
        model: Any = schema.Model.GetRootAs(content)
        if model.SubgraphsLength() != 1:
            raise ExportError(
                f"{path} has {model.SubgraphsLength()} subgraphs (control flow)",
                "Export it without loops and branches.",
            )
        tree = schema.ModelT()
        tree.version, tree.description = model.Version(), model.Description()
        tree.operatorCodes = [
            schema.OperatorCodeT.InitFromObj(model.OperatorCodes(i)) for i in range(model.OperatorCodesLength())
        ]
        tree.subgraphs = [schema.SubGraphT.InitFromObj(model.Subgraphs(0))]
        tree.signatureDefs = [
            schema.SignatureDefT.InitFromObj(model.SignatureDefs(i)) for i in range(model.SignatureDefsLength())
        ]
        return _graph(path, len(content), tree, list(_places(model, content)))


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    """The file in memory, page by page as it is read."""
    try:
        with path.open("rb") as stream:
            check_identifier(path, stream.read(8))
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror or error}", "Check its name and rights."
        ) from error
    # Not closed: views of it may live in an exception's frames; the map goes with the last of them.
    yield mapped


def _places(model: Any, content: mmap.mmap) -> Iterator[Stored | None]:
    """Where each buffer lies: inside the flatbuffer, or behind it at an offset."""
    base = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        inside = buffer.DataAsNumpy()
        if buffer.Offset() > 1:
            if buffer.Offset() + buffer.Size() > len(content):
                raise ValueError(f"a buffer ends at byte {buffer.Offset() + buffer.Size()}")
            yield Stored(int(buffer.Offset()), int(buffer.Size()))
        elif isinstance(inside, np.ndarray) and len(inside):
            yield Stored(inside.__array_interface__["data"][0] - base, len(inside))
        else:
            yield None
        # The kernel maps up to megabytes around the few bytes that were read.
        content.madvise(mmap.MADV_DONTNEED)


def _graph(path: Path, size: int, tree: Any, places: list[Stored | None]) -> Graph:
    graph = tree.subgraphs[0]
    tensors = tuple(_tensor(path, index, tensor, places[tensor.buffer]) for index, tensor in enumerate(graph.tensors))
    operators = tuple(
        Operator(index, op_kind(tree, op), _present(op.inputs), _present(op.outputs))
        for index, op in enumerate(graph.operators)
    )
    inputs, outputs = ({int(i): tensors[i].name for i in ends} for ends in (graph.inputs, graph.outputs))
    for signature in tree.signatureDefs[:1]:
        inputs |= {int(entry.tensorIndex): entry.name.decode() for entry in signature.inputs}
        outputs |= {int(entry.tensorIndex): entry.name.decode() for entry in signature.outputs}
    return Graph(path, size, tensors, operators, inputs, outputs, tree)


def _tensor(path: Path, index: int, tensor: Any, stored: Stored | None) -> Tensor:
    name, dtype = tensor.name.decode(errors="replace"), _TYPES[tensor.type]
    signature = () if tensor.shapeSignature is None else tuple(tensor.shapeSignature)
    if dtype not in _BITS or tensor.isVariable or any(n < 0 for n in signature):
        what = (
            "has a dynamic shape"
            if any(n < 0 for n in signature)
            else f"is {'a state' if tensor.isVariable else dtype}"
        )
        raise ExportError(
            f"{path}: tensor {name} {what}, so that its memory is not known", "Export with static shapes and no state."
        )
    shape = () if tensor.shape is None else tuple(int(n) for n in tensor.shape)
    return Tensor(index, name, dtype, shape, stored)


def _present(indices: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in indices if i >= 0)

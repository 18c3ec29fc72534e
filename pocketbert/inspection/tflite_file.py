"""Read a .tflite file with the flatbuffer's schema, without an interpreter: custom ops and new ops are no obstacle."""

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.errors import CheckpointError
from pocketbert.inspection.graph import Constant, Graph, ModelFile, Node, OpUse, Signature
from pocketbert.inspection.quantized_ops import Stored, needed_version
from pocketbert.runtimes.base import TensorSpec

IDENTIFIER = b"TFL3"
# What flatbuffers and numpy raise for offsets beyond the end of the file.
_DAMAGE = (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError)


def read_tflite(path: Path) -> ModelFile:
    """Read the whole structure of a .tflite file; raises CheckpointError where it is cut short or no TFLite file."""
    content = path.read_bytes()
    check_identifier(path, content[:8])
    with naming_damage(path, len(content)):
        return _read(content)


def check_identifier(path: Path, start: bytes) -> None:
    """Raise CheckpointError unless `start`, the first 8 bytes of a file, is that of a TFLite file."""
    if start[4:8] != IDENTIFIER:
        kind = "is empty" if not start else f"does not start as a TFLite file (bytes 4 to 8 are {start[4:8]!r})"
        raise CheckpointError(f"{path} {kind}", "Name a .tflite file, or build it again.")


@contextmanager
def naming_damage(path: Path, size: int) -> Iterator[None]:
    """Raise CheckpointError for what reading a damaged file of `size` bytes raises."""
    try:
        yield
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path} is damaged: its structure points beyond its {size} bytes ({error})",
            "The file was cut short while it was copied or downloaded; copy or build it again.",
        ) from error


def op_kind(tree: Any, op: Any) -> str:
    """Builtin name of an operator of a `ModelT` tree ("CUSTOM" for one that is not builtin)."""
    code = tree.operatorCodes[op.opcodeIndex]
    # Codes below 127 are written to the deprecated field.
    return _builtin_names()[max(code.builtinCode, code.deprecatedBuiltinCode)]


@cache
def _builtin_names() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


def _read(content: bytes) -> ModelFile:
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.Model.GetRootAs(content, 0)
    if not model.SubgraphsLength():
        raise ValueError("no graph")
    sizes = [_buffer_size(model.Buffers(i), len(content)) for i in range(model.BuffersLength())]
    codes = [_op_code(model.OperatorCodes(i)) for i in range(model.OperatorCodesLength())]
    uses: Counter[OpUse] = Counter()
    nodes: list[Node] = []
    constants: dict[str, Constant] = {}
    shapes: dict[str, tuple[int | None, ...]] = {}
    block_scales: set[str] = set()
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for position in range(graph.TensorsLength()):
            tensor, value = graph.Tensors(position), f"{index}.{position}"
            spec = _spec(tensor)
            shapes[value] = spec.shape
            if size := sizes[tensor.Buffer()]:
                shape = tuple(int(n) for n in _vector(tensor.ShapeAsNumpy()))
                scales = _scales(graph, tensor, sizes)
                constants[value] = Constant(spec.name, spec.dtype, shape, size + scales.size_bytes)
                block_scales.add(f"{index}.{scales.tensor}")
        for position in range(graph.OperatorsLength()):
            operator = graph.Operators(position)
            code = codes[operator.OpcodeIndex()]
            numbers = (operator.InputsAsNumpy(), operator.OutputsAsNumpy())
            uses[_use(code, *(_stored(graph, tensors) for tensors in numbers))] += 1
            ends = [_values(index, tensors) for tensors in numbers]
            nodes.append(Node(code[0], f"{code[0]}#{position}", *ends))
    # Counted with the constant that they scale.
    constants = {value: constant for value, constant in constants.items() if value not in block_scales}
    main = model.Subgraphs(0)
    inputs = {f"0.{i}": _spec(main.Tensors(int(i))) for i in _vector(main.InputsAsNumpy())}
    return ModelFile(
        format="tflite",
        size_bytes=len(content),
        inputs=tuple(inputs.values()),
        outputs=tuple(_spec(main.Tensors(int(i))) for i in _vector(main.OutputsAsNumpy())),
        ops=tuple(replace(use, count=count) for use, count in uses.most_common()),
        graph=Graph(tuple(nodes), constants, shapes, {v: spec.name for v, spec in inputs.items()}),
        signatures=tuple(_signature(model, model.SignatureDefs(i)) for i in range(model.SignatureDefsLength())),
        facts=_facts(model),
    )


@dataclass(frozen=True)
class _Scales:
    """What scales and zero points of a quantized tensor take, and the tensor that holds a scale a block (or -1)."""

    size_bytes: int
    tensor: int


def _scales(graph: Any, tensor: Any, sizes: list[int]) -> _Scales:
    from ai_edge_litert import schema_py_generated as schema

    stored = tensor.Quantization()
    if stored is None:
        return _Scales(0, -1)
    size = 4 * stored.ScaleLength() + 8 * stored.ZeroPointLength()
    if stored.DetailsType() != schema.QuantizationDetails.BlockwiseQuantization:
        return _Scales(size, -1)
    details, table = schema.BlockwiseQuantization(), stored.Details()
    details.Init(table.Bytes, table.Pos)
    return _Scales(size + sizes[graph.Tensors(details.Scales()).Buffer()], details.Scales())


def _buffer_size(buffer: Any, file_size: int) -> int:
    """Bytes of a buffer; raises ValueError where it does not lie inside the file."""
    data = buffer.DataAsNumpy()
    # Files over 2 GB keep a buffer behind the flatbuffer, at `offset`.
    if buffer.Offset() > 1 and buffer.Offset() + buffer.Size() > file_size:
        raise ValueError(f"a buffer ends at byte {buffer.Offset() + buffer.Size()}")
    return int(data.nbytes) if isinstance(data, np.ndarray) else int(buffer.Size())


def _op_code(code: Any) -> tuple[str, int, bool]:
    """Name, version and whether it is a custom op. Codes beyond 127 do not fit into the deprecated field."""
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = _names("BuiltinOperator").get(number, f"BUILTIN_{number}")
    if name == "CUSTOM":
        return (code.CustomCode() or b"?").decode(errors="replace"), code.Version(), True
    return name, code.Version(), False


def _use(code: tuple[str, int, bool], inputs: list[Stored], outputs: list[Stored]) -> OpUse:
    """One occurrence of an operator."""
    op, stated, custom = code
    needed = stated if custom else needed_version(op, inputs, outputs)
    if needed is None:
        return OpUse(op, stated, 1, custom, unlisted=True)
    return OpUse(op, max(stated, needed), 1, custom, stated if needed > stated else None)


def _stored(graph: Any, tensors: Any) -> list[Stored]:
    """How the tensors of an operator's inputs or outputs are stored."""
    from ai_edge_litert import schema_py_generated as schema

    found = []
    for index in _vector(tensors):
        tensor = graph.Tensors(index) if index >= 0 else None
        scales = tensor.Quantization() if tensor else None
        found.append(
            Stored(
                _names("TensorType").get(tensor.Type(), "").lower() if tensor else "",
                scales is not None and scales.ScaleLength() > 1,
                scales is not None and scales.DetailsType() == schema.QuantizationDetails.BlockwiseQuantization,
            )
        )
    return found


@cache
def _names(enumeration: str) -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {number: name for name, number in vars(getattr(schema, enumeration)).items() if isinstance(number, int)}


def _spec(tensor: Any) -> TensorSpec:
    """Name, dtype and shape; the shape signature, where there is one, says which dimensions are dynamic."""
    stated = _vector(tensor.ShapeSignatureAsNumpy())
    shape = stated if len(stated) else _vector(tensor.ShapeAsNumpy())
    name = (tensor.Name() or b"").decode(errors="replace")
    return TensorSpec(
        name,
        _names("TensorType").get(tensor.Type(), f"type {tensor.Type()}").lower(),
        tuple(int(n) if n >= 0 else None for n in shape),
    )


def _vector(numbers: Any) -> list[int]:
    """flatbuffers answers 0 for an absent vector."""
    return numbers.tolist() if isinstance(numbers, np.ndarray) else []


def _values(graph: int, tensors: Any) -> tuple[str, ...]:
    return tuple(f"{graph}.{t}" if t >= 0 else "" for t in _vector(tensors))


def _signature(model: Any, definition: Any) -> Signature:
    graph = model.Subgraphs(definition.SubgraphIndex())

    def specs(length: int, entry: Any) -> tuple[TensorSpec, ...]:
        entries = [entry(i) for i in range(length)]
        plain = [(e.Name().decode(), _spec(graph.Tensors(e.TensorIndex()))) for e in entries]
        return tuple(TensorSpec(name, spec.dtype, spec.shape) for name, spec in plain)

    return Signature(
        definition.SignatureKey().decode(),
        specs(definition.InputsLength(), definition.Inputs),
        specs(definition.OutputsLength(), definition.Outputs),
    )


def _facts(model: Any) -> dict[str, str]:
    facts = {"schema_version": str(model.Version()), "description": (model.Description() or b"").decode()}
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == b"min_runtime_version":
            stored = model.Buffers(entry.Buffer()).DataAsNumpy()
            facts["min_runtime_version"] = (
                bytes(stored).rstrip(b"\0").decode() if isinstance(stored, np.ndarray) else ""
            )
    return {name: value for name, value in facts.items() if value}

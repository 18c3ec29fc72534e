"""Read a .tflite file with the flatbuffer's schema, without an interpreter: custom ops and new ops are no obstacle."""

import struct
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.errors import CheckpointError
from pocketbert.inspection.graph import Constant, Graph, ModelFile, Node, OpUse, Signature
from pocketbert.runtimes.base import TensorSpec

IDENTIFIER = b"TFL3"
# What flatbuffers and numpy raise for offsets beyond the end of the file.
_DAMAGE = (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError)


def read_tflite(path: Path) -> ModelFile:
    """Read the whole structure of a .tflite file; raises CheckpointError where it is cut short or no TFLite file."""
    content = path.read_bytes()
    if content[4:8] != IDENTIFIER:
        kind = "is empty" if not content else f"does not start as a TFLite file (bytes 4 to 8 are {content[4:8]!r})"
        raise CheckpointError(f"{path} {kind}", "Name a .tflite file, or build it again.")
    try:
        return _read(content)
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path} is damaged: its structure points beyond its {len(content)} bytes ({error})",
            "The file was cut short while it was copied or downloaded; copy or build it again.",
        ) from error


def _read(content: bytes) -> ModelFile:
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.Model.GetRootAs(content, 0)
    if not model.SubgraphsLength():
        raise ValueError("no graph")
    sizes = [_buffer_size(model.Buffers(i), len(content)) for i in range(model.BuffersLength())]
    codes = [_op_code(model.OperatorCodes(i)) for i in range(model.OperatorCodesLength())]
    uses: Counter[tuple[str, int, bool]] = Counter()
    nodes: list[Node] = []
    constants: dict[str, Constant] = {}
    shapes: dict[str, tuple[int | None, ...]] = {}
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for position in range(graph.TensorsLength()):
            tensor, value = graph.Tensors(position), f"{index}.{position}"
            spec = _spec(tensor)
            shapes[value] = spec.shape
            if size := sizes[tensor.Buffer()]:
                shape = tuple(int(n) for n in _vector(tensor.ShapeAsNumpy()))
                constants[value] = Constant(spec.name, spec.dtype, shape, size)
        for position in range(graph.OperatorsLength()):
            operator = graph.Operators(position)
            code = codes[operator.OpcodeIndex()]
            uses[code] += 1
            ends = [_values(index, ends) for ends in (operator.InputsAsNumpy(), operator.OutputsAsNumpy())]
            nodes.append(Node(code[0], f"{code[0]}#{position}", *ends))
    main = model.Subgraphs(0)
    inputs = {f"0.{i}": _spec(main.Tensors(int(i))) for i in _vector(main.InputsAsNumpy())}
    return ModelFile(
        format="tflite",
        size_bytes=len(content),
        inputs=tuple(inputs.values()),
        outputs=tuple(_spec(main.Tensors(int(i))) for i in _vector(main.OutputsAsNumpy())),
        ops=tuple(OpUse(*code[:2], count, code[2]) for code, count in uses.most_common()),
        graph=Graph(tuple(nodes), constants, shapes, {v: spec.name for v, spec in inputs.items()}),
        signatures=tuple(_signature(model, model.SignatureDefs(i)) for i in range(model.SignatureDefsLength())),
        facts=_facts(model),
    )


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

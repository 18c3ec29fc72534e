"""Read an .onnx file's structure without a session: missing data and unknown ops are named."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pocketbert.errors import CheckpointError
from pocketbert.inspection.graph import Constant, Graph, ModelFile, Node, OpUse
from pocketbert.runtimes.base import TensorSpec

STANDARD_DOMAINS = ("", "ai.onnx")
_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4}


def read_onnx(path: Path) -> ModelFile:
    """Read an .onnx file; raises CheckpointError where it is cut short, no ONNX model, or its external data is gone."""
    model = _load(path)
    if not model.graph.node or not model.opset_import or not model.graph.output:
        lacking = "a graph" if not model.graph.node else "an opset" if not model.opset_import else "an output"
        raise _damaged(path, f"it holds no model: {lacking} is missing")
    try:
        return _read(path, model)
    # Bytes that are no UTF-8 come as bytes instead of str, unknown types as numbers without a name.
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, f"a name or a type is damaged ({error})") from error


def external_files(path: Path) -> list[Path]:
    """The files beside an .onnx file that hold its weights, all there and long enough; raises CheckpointError."""
    return _check_external_data(path, _load(path))


def _load(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise _damaged(path, f"it cannot be decoded ({error})") from error


def _read(path: Path, model: Any) -> ModelFile:
    _check_names(model)
    external = _check_external_data(path, model)
    constants = {c.name: c for c in _constants(path, model)}
    inputs = [i for i in model.graph.input if i.name not in constants]
    known = [*inputs, *model.graph.output, *model.graph.value_info]
    nodes = [
        Node(n.op_type, n.name or f"{n.op_type}#{i}", tuple(n.input), tuple(n.output))
        for i, n in enumerate(model.graph.node)
        if n.op_type != "Constant"
    ]
    return ModelFile(
        format="onnx",
        size_bytes=path.stat().st_size + sum(file.stat().st_size for file in external),
        inputs=tuple(_spec(i) for i in inputs),
        outputs=tuple(_spec(o) for o in model.graph.output),
        ops=_op_uses(model),
        graph=Graph(tuple(nodes), constants, {v.name: _spec(v).shape for v in known}, {i.name: i.name for i in inputs}),
        opsets={entry.domain.removeprefix("ai.onnx"): entry.version for entry in model.opset_import},
        facts=_facts(model, external),
    )


def _damaged(path: Path, reason: str) -> CheckpointError:
    size = path.stat().st_size
    return CheckpointError(
        f"{path} is not a whole ONNX model: {reason} in its {size} bytes",
        "The file was cut short or is of another format; copy or build it again.",
    )


def _check_names(model: Any) -> None:
    """Raise ValueError for a name that is no text."""
    named = [*model.graph.initializer, *model.graph.node, *model.graph.input, *model.graph.output]
    values = [value for node in model.graph.node for value in (*node.input, *node.output, node.op_type, node.domain)]
    wrong = next((name for name in [*(entry.name for entry in named), *values] if not isinstance(name, str)), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is not UTF-8")


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    yield from ((tensor.name, tensor) for tensor in model.graph.initializer)
    for node in model.graph.node:
        if node.op_type == "Constant":
            yield from ((node.output[0], attribute.t) for attribute in node.attribute if attribute.HasField("t"))


def _check_external_data(path: Path, model: Any) -> list[Path]:
    """The files beside the model that hold weights, all there and long enough; raises CheckpointError."""
    from onnx import TensorProto

    files: dict[str, Path] = {}
    for name, tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entry = {e.key: e.value for e in tensor.external_data}
        location = entry.get("location", "")
        file = path.parent / location
        if not file.resolve().is_relative_to(path.parent.resolve()):
            raise CheckpointError(
                f"{path} keeps its weights outside its own folder: {location!r}", "Do not trust this file."
            )
        if not file.is_file():
            raise CheckpointError(
                f"{path} keeps its weights in {location!r}, which is not beside it (first needed by {name})",
                f"Copy {location} into {path.parent} too, or save the model as one file.",
            )
        end = int(entry.get("offset", 0)) + int(entry.get("length", 0))
        if end > file.stat().st_size:
            raise CheckpointError(
                f"{file} is cut short: {name} ends at byte {end}, the file at {file.stat().st_size}", "Copy it again."
            )
        files[location] = file
    return list(files.values())


def _constants(path: Path, model: Any) -> Iterator[Constant]:
    from onnx import TensorProto

    for name, tensor in _tensors(model):
        dtype = TensorProto.DataType.Name(tensor.data_type)
        shape = tuple(tensor.dims)
        size = _stored_bytes(dtype, shape)
        if tensor.HasField("raw_data") and size is not None and len(tensor.raw_data) < size:
            raise _damaged(path, f"the weights of {name} are {len(tensor.raw_data)} bytes instead of {size}")
        yield Constant(name, _plain(dtype), shape, tensor.ByteSize() if size is None else size)


def _stored_bytes(dtype: str, shape: tuple[int, ...]) -> int | None:
    """Bytes of a tensor, None for strings."""
    import math

    from onnx import TensorProto, helper

    if dtype in ("STRING", "UNDEFINED"):
        return None
    bits = _BITS.get(dtype) or 8 * helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(dtype)).itemsize
    return (math.prod(shape) * bits + 7) // 8


def _plain(dtype: str) -> str:
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(dtype, dtype.lower())


def _spec(value: Any) -> TensorSpec:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return TensorSpec(value.name, _plain(TensorProto.DataType.Name(tensor.elem_type)), shape)


def _op_uses(model: Any) -> tuple[OpUse, ...]:
    uses = Counter((node.domain, node.op_type) for node in model.graph.node)
    local = {(function.domain, function.name) for function in model.functions}
    return tuple(
        OpUse(
            op if domain in STANDARD_DOMAINS else f"{domain}.{op}",
            None,
            count,
            custom=domain not in STANDARD_DOMAINS and (domain, op) not in local,
        )
        for (domain, op), count in uses.most_common()
    )


def _facts(model: Any, external: list[Path]) -> dict[str, str]:
    opsets = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import)
    facts = {
        "ir_version": str(model.ir_version),
        "opset": opsets,
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "external_data": ", ".join(file.name for file in external),
    }
    return {name: value for name, value in facts.items() if value}

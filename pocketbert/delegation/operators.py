"""The operators of a .tflite file with what decides about their delegation: kinds, types, shapes and options."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ai_edge_litert import schema_py_generated as schema

from pocketbert.inspection.tflite_file import op_kind, read_tflite

_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}


Scales = Literal["none", "tensor", "channel", "block"]


@dataclass(frozen=True)
class Tensor:
    """A tensor as the file declares it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    # Stored in the file, or made of what is stored by a DEQUANTIZE.
    constant: bool
    # What shares a scale of a quantized tensor.
    scales: Scales = "none"
    # The type in which a DEQUANTIZE's constant is stored; else "".
    stored: str = ""


@dataclass(frozen=True)
class Operator:
    """One operator of the first subgraph; options by their names in TFLite's schema."""

    index: int
    kind: str
    version: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: Mapping[str, Any]
    # Indices of the tensors, by which operators are connected.
    input_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    # Kinds of the operators that read its outputs.
    read_by: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its first output: TFLite's operators have none of their own."""
        return self.outputs[0].name if self.outputs else f"operator {self.index}"


def read_operators(path: Path) -> list[Operator]:
    """The operators of the first subgraph, in order; raises CheckpointError for a damaged file."""
    read_tflite(path)
    tree: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    graph = tree.subgraphs[0]
    # By index; what a DEQUANTIZE makes of a constant is one as well, for a delegate takes it as a weight.
    tensors = {index: _tensor(tree, tensor) for index, tensor in enumerate(graph.tensors)}
    readers: dict[int, list[str]] = {}
    for op in graph.operators:
        for tensor in op.inputs:
            readers.setdefault(int(tensor), []).append(_kind(tree, op))
    operators = []
    for index, op in enumerate(graph.operators):
        operator = Operator(
            index=index,
            kind=_kind(tree, op),
            version=int(tree.operatorCodes[op.opcodeIndex].version),
            # -1 stands for an optional input that is not there.
            inputs=tuple(tensors[i] for i in op.inputs if i >= 0),
            outputs=tuple(tensors[i] for i in op.outputs if i >= 0),
            options=vars(op.builtinOptions) if op.builtinOptions else {},
            input_ids=tuple(map(int, op.inputs)),
            output_ids=tuple(map(int, op.outputs)),
            read_by=tuple(kind for i in op.outputs for kind in readers.get(int(i), ())),
        )
        if operator.kind == "DEQUANTIZE" and operator.inputs[0].constant:
            made = replace(operator.outputs[0], constant=True, stored=operator.inputs[0].dtype)
            tensors[operator.output_ids[0]] = made
            operator = replace(operator, outputs=(made,))
        operators.append(operator)
    return operators


def _tensor(tree: Any, tensor: Any) -> Tensor:
    shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    buffer = tree.buffers[tensor.buffer]
    # A large constant may lie behind the flatbuffer, at an offset of the file.
    constant = buffer.data is not None or (buffer.offset or 0) > 1
    return Tensor(tensor.name.decode(errors="replace"), _TYPES[tensor.type], shape, constant, _scales(tensor))


def _scales(tensor: Any) -> Scales:
    stored = tensor.quantization
    if stored is None:
        return "none"
    if stored.detailsType == schema.QuantizationDetails.BlockwiseQuantization:
        return "block"
    count = 0 if stored.scale is None else len(stored.scale)
    return "none" if count == 0 else "tensor" if count == 1 else "channel"


def _kind(tree: Any, op: Any) -> str:
    kind = op_kind(tree, op)
    custom = tree.operatorCodes[op.opcodeIndex].customCode
    return f"CUSTOM {custom.decode(errors='replace')}" if kind == "CUSTOM" else kind

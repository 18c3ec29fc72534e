"""The operators of a .tflite file with what decides about their delegation: kinds, types, shapes and options."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from pocketbert.inspection.tflite_file import op_kind, read_tflite

_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}


@dataclass(frozen=True)
class Tensor:
    """A tensor as the file declares it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    constant: bool


@dataclass(frozen=True)
class Operator:
    """One operator of the first subgraph; options by their names in TFLite's schema."""

    index: int
    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: Mapping[str, Any]
    # Indices of the tensors, by which operators are connected.
    input_ids: tuple[int, ...]
    output_ids: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of its first output: TFLite's operators have none of their own."""
        return self.outputs[0].name if self.outputs else f"operator {self.index}"


def read_operators(path: Path) -> list[Operator]:
    """The operators of the first subgraph, in order; raises CheckpointError for a damaged file."""
    read_tflite(path)
    tree: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    graph = tree.subgraphs[0]

    def tensors(indices: Any) -> tuple[Tensor, ...]:
        # -1 stands for an optional input that is not there.
        return tuple(_tensor(tree, graph.tensors[index]) for index in indices if index >= 0)

    return [
        Operator(
            index=index,
            kind=_kind(tree, op),
            inputs=tensors(op.inputs),
            outputs=tensors(op.outputs),
            options=vars(op.builtinOptions) if op.builtinOptions else {},
            input_ids=tuple(map(int, op.inputs)),
            output_ids=tuple(map(int, op.outputs)),
        )
        for index, op in enumerate(graph.operators)
    ]


def _tensor(tree: Any, tensor: Any) -> Tensor:
    shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    constant = tree.buffers[tensor.buffer].data is not None
    return Tensor(tensor.name.decode(errors="replace"), _TYPES[tensor.type], shape, constant)


def _kind(tree: Any, op: Any) -> str:
    kind = op_kind(tree, op)
    custom = tree.operatorCodes[op.opcodeIndex].customCode
    return f"CUSTOM {custom.decode(errors='replace')}" if kind == "CUSTOM" else kind

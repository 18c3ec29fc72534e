"""What the TFLite recipes need to know and to change of a .tflite file's graph."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from pocketbert.inspection.tflite_file import op_kind

_FLOAT32, _INT32 = schema.TensorType.FLOAT32, schema.TensorType.INT32


@dataclass(frozen=True)
class Op:
    """An op of the first subgraph: its builtin name and its float32 activations as (tensor index, name)."""

    kind: str
    inputs: tuple[tuple[int, str], ...]
    outputs: tuple[tuple[int, str], ...]

    @property
    def activations(self) -> tuple[tuple[int, str], ...]:
        """Inputs and outputs that are computed at run time, in float32."""
        return self.inputs + self.outputs


def float_ops(model: bytes) -> list[Op]:
    """The ops of the first subgraph, in order."""
    tree = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    graph = tree.subgraphs[0]

    def activations(indices: Any) -> Iterator[tuple[int, str]]:
        for index in indices:
            tensor = graph.tensors[index]
            if index >= 0 and tensor.type == _FLOAT32 and tree.buffers[tensor.buffer].data is None:
                yield int(index), tensor.name.decode()

    return [
        Op(op_kind(tree, op), tuple(activations(op.inputs)), tuple(activations(op.outputs))) for op in graph.operators
    ]


def tables_to_embedding_lookup(model: bytes) -> tuple[bytes, int]:
    """Turn each GATHER of rows of a constant table into the equal EMBEDDING_LOOKUP; return the model and the count.

    ai-edge-quantizer quantizes the table of an EMBEDDING_LOOKUP row by row, and leaves that of a GATHER in float32
    (or, statically, gives the whole table one scale). The two ops compute the same.
    """
    tree = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    graph, lookups = tree.subgraphs[0], 0
    for op in graph.operators:
        if op_kind(tree, op) == "GATHER" and _reads_rows(tree, graph, op):
            table, ids = op.inputs
            op.inputs = np.array([ids, table], dtype=np.int32)
            op.opcodeIndex = _code(tree, schema.BuiltinOperator.EMBEDDING_LOOKUP)
            op.builtinOptions, op.builtinOptionsType = None, schema.BuiltinOptions.NONE
            lookups += 1
    return bytes(flatbuffer_utils.convert_object_to_bytearray(tree)), lookups


def table_widths(model: bytes) -> list[int]:
    """Row width of the table of each EMBEDDING_LOOKUP."""
    tree = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    graph = tree.subgraphs[0]
    return [
        int(graph.tensors[op.inputs[1]].shape[1]) for op in graph.operators if op_kind(tree, op) == "EMBEDDING_LOOKUP"
    ]


def _reads_rows(tree: Any, graph: Any, op: Any) -> bool:
    table, ids = (graph.tensors[index] for index in op.inputs)
    options = op.builtinOptions
    return (
        (options is None or (options.axis == 0 and options.batchDims == 0))
        and table.type == _FLOAT32
        and len(table.shape) == 2
        and tree.buffers[table.buffer].data is not None
        and ids.type == _INT32
        and len(ids.shape) == 1
    )


def add_index_lookups(tree: Any, places: Mapping[int, int], row_of_id: NDArray[np.int32]) -> None:
    """Let ops of the first subgraph (number -> position of the ids among its inputs) read row_of_id[id] for id.

    `tree` is changed in place. The ids are int32.
    """
    graph = tree.subgraphs[0]
    data = schema.BufferT()
    data.data = np.frombuffer(row_of_id.tobytes(), dtype=np.uint8)
    tree.buffers.append(data)
    table = _add_tensor(graph, b"row_of_id", row_of_id.shape, len(tree.buffers) - 1)
    # From the last one on, so that the numbers before it stay as they are.
    for number, position in sorted(places.items(), reverse=True):
        reader = graph.operators[number]
        ids = graph.tensors[reader.inputs[position]]
        lookup = schema.OperatorT()
        lookup.opcodeIndex = _code(tree, schema.BuiltinOperator.GATHER)
        lookup.builtinOptions, lookup.builtinOptionsType = schema.GatherOptionsT(), schema.BuiltinOptions.GatherOptions
        lookup.builtinOptions.axis = lookup.builtinOptions.batchDims = 0
        found = _add_tensor(graph, ids.name + b"_row", ids.shape, 0)
        lookup.inputs = np.array([table, reader.inputs[position]], dtype=np.int32)
        lookup.outputs = np.array([found], dtype=np.int32)
        inputs = np.array(reader.inputs, dtype=np.int32)
        inputs[position] = found
        reader.inputs = inputs
        graph.operators.insert(number, lookup)


def _add_tensor(graph: Any, name: bytes, shape: Sequence[int], buffer: int) -> int:
    """Add an int32 tensor; buffer 0 is that of what is computed at run time."""
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.buffer = name, _INT32, buffer
    tensor.shape = np.array(shape, dtype=np.int32)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _code(tree: Any, wanted: int) -> int:
    """Index of a builtin operator among the model's operator codes, added where it is missing."""
    for index, code in enumerate(tree.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == wanted:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = wanted
    code.version = 1
    tree.operatorCodes.append(code)
    return len(tree.operatorCodes) - 1

"""The word embeddings of an exported model, cut to some of their rows."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.errors import ExportError
from pocketbert.quantize.flatbuffer import add_index_lookups
from pocketbert.quantize.vocabulary_shared import SeenTokens, rows_of_tokens

IDS = "input_ids"
# Ops that hand token ids, their first input, on as they are.
_CARRIERS = {"Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten"}
_TFLITE_CARRIERS = {"CAST", "RESHAPE", "EXPAND_DIMS", "SQUEEZE"}
# Lookup op -> positions of (table, ids) among its inputs.
_TFLITE_LOOKUPS = {"GATHER": (0, 1), "EMBEDDING_LOOKUP": (1, 0)}
_FIX = "Set `vocabulary: full` for this recipe."


def trim_table(source: Path, target: Path, kept: NDArray[np.int64]) -> int:
    """Write the .onnx or .tflite file `source` with the rows `kept` of its word embeddings; return how many it had.

    The table is the one float32 constant that `input_ids` index. Raises ExportError where there is none or several,
    where it ends before the vocabulary does, or where something else reads it too (the decoder of a masked-LM).
    """
    return (_write_onnx if source.suffix == ".onnx" else _write_tflite)(source, target, kept, None)


def share_table(source: Path, target: Path, seen: SeenTokens) -> int:
    """Write the file with the kept rows alone, and a lookup before them of each id's row; return how many it had.

    Raises as `trim_table` does.
    """
    return (_write_onnx if source.suffix == ".onnx" else _write_tflite)(source, target, seen.kept, seen)


def _write_onnx(source: Path, target: Path, kept: NDArray[np.int64], seen: SeenTokens | None) -> int:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    nodes = model.graph.node
    tables = {tensor.name: tensor for tensor in model.graph.initializer}
    ids = {IDS}
    for node in nodes:
        if node.op_type in _CARRIERS and node.input[0] in ids:
            ids.update(node.output)
    lookups = [node for node in nodes if node.op_type == "Gather" and node.input[1] in ids and node.input[0] in tables]
    name = _only(source, {node.input[0] for node in lookups})
    readers = [node.op_type for node in nodes if name in node.input and node not in lookups]
    rows = numpy_helper.to_array(tables[name])
    tables[name].CopyFrom(numpy_helper.from_array(_cut(source, rows, kept, readers), name))
    if seen is not None:
        row_of_id = f"{name}_row_of_id"
        model.graph.initializer.append(numpy_helper.from_array(rows_of_tokens(rows, seen), row_of_id))
        for node in lookups:
            found = f"{node.output[0]}_row"
            place = list(nodes).index(node)
            nodes.insert(
                place, onnx.helper.make_node("Gather", [row_of_id, node.input[1]], [found], f"{node.name}_row")
            )
            nodes[place + 1].input[1] = found
    onnx.save(model, target)
    return len(rows)


def _write_tflite(source: Path, target: Path, kept: NDArray[np.int64], seen: SeenTokens | None) -> int:
    from ai_edge_litert.tools import flatbuffer_utils

    tree = flatbuffer_utils.read_model_from_bytearray(bytearray(source.read_bytes()))
    tensors, ops = tree.subgraphs[0].tensors, tree.subgraphs[0].operators
    kinds = [flatbuffer_utils.opcode_to_name(tree, op.opcodeIndex) for op in ops]
    inputs = [entry for signature in tree.signatureDefs or [] for entry in signature.inputs]
    ids = {entry.tensorIndex for entry in inputs if entry.name == IDS.encode()}
    buffers: dict[int, int] = {}
    for number, (kind, op) in enumerate(zip(kinds, ops, strict=True)):
        if kind in _TFLITE_CARRIERS and op.inputs[0] in ids:
            ids.update(op.outputs)
        if kind in _TFLITE_LOOKUPS:
            table, index = (op.inputs[position] for position in _TFLITE_LOOKUPS[kind])
            if index in ids and tree.buffers[tensors[table].buffer].data is not None:
                buffers[number] = tensors[table].buffer
    buffer = _only(source, set(buffers.values()))
    # Tensors of equal content may share a buffer.
    same = {number for number, tensor in enumerate(tensors) if tensor.buffer == buffer}
    readers = [str(kinds[n]) for n, op in enumerate(ops) if n not in buffers and same & set(map(int, op.inputs))]
    shape = tensors[min(same)].shape
    rows = np.frombuffer(bytes(tree.buffers[buffer].data), dtype=np.float32).reshape(shape)
    tree.buffers[buffer].data = np.frombuffer(_cut(source, rows, kept, readers).tobytes(), dtype=np.uint8)
    for number in same:
        tensors[number].shape = np.array([len(kept), *shape[1:]], dtype=np.int32)
    if seen is not None:
        places = {number: _TFLITE_LOOKUPS[kinds[number]][1] for number in buffers}
        add_index_lookups(tree, places, rows_of_tokens(rows, seen))
    target.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(tree)))
    return len(rows)


def _only(source: Path, tables: Collection[Any]) -> Any:
    if len(tables) != 1:
        raise ExportError(
            f"{source}: {len(tables) or 'no'} constant tables are indexed by {IDS}; a vocabulary has one table", _FIX
        )
    return next(iter(tables))


def _cut(
    source: Path, rows: NDArray[np.float32], kept: NDArray[np.int64], readers: Iterable[str]
) -> NDArray[np.float32]:
    """The kept rows, once it is sure that nothing else depends on the others."""
    if others := sorted(set(readers)):
        raise ExportError(f"{source}: {', '.join(others)} reads the word embeddings too", _FIX)
    if rows.ndim != 2 or rows.dtype != np.float32:
        raise ExportError(f"{source}: the word embeddings are {rows.dtype}{list(rows.shape)}, not float32 rows", _FIX)
    if kept[-1] >= len(rows):
        raise ExportError(f"{source}: the tokenizer has ids up to {kept[-1]}, the table {len(rows)} rows", _FIX)
    return np.ascontiguousarray(rows[kept])

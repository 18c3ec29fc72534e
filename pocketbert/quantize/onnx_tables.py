"""Embedding tables of an ONNX graph in fp16, int8 or int4; what looks up their rows gives floats as before."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pocketbert.errors import ParamsError
from pocketbert.quantize.blocks import pack, quantize_blocks
from pocketbert.quantize.onnx_graph import MICROSOFT, import_domain, lookups
from pocketbert.quantize.options import INT4_TABLE_BLOCK, Tables


@dataclass(frozen=True)
class _Form:
    """How a table is stored, and the nodes that look its rows up in place of a Gather."""

    store: Callable[[TensorProto], list[TensorProto]]
    read: Callable[[NodeProto, TensorProto, list[str]], list[NodeProto]]


def quantize_tables(model: onnx.ModelProto, tables: Tables, kept: Collection[str]) -> int:
    """Store the tables as asked, but those that a node named in `kept` reads; returns how many lookups changed.

    int8 has one scale a row and needs standard operators only (Gather, Cast, Mul). int4 has one scale a block of 32
    and needs ONNX Runtime's GatherBlockQuantized; rows that 32 does not divide stay int8. Raises ParamsError for
    int4_row, which it does not read.
    """
    if tables == "int4_row":
        raise ParamsError("embeddings: int4_row is for TFLite alone", "Give an ONNX recipe embeddings: int4.")
    found = lookups(model)
    kept_tables = {node.input[0] for node in found if node.name in kept}
    changed = [node for node in found if node.input[0] not in kept_tables] if tables != "float" else []
    constants = {t.name: t for t in model.graph.initializer}
    stored: dict[str, list[TensorProto]] = {}
    for node in changed:
        table = constants[node.input[0]]
        form = _FORMS["int8" if tables == "int4" and table.dims[1] % INT4_TABLE_BLOCK else tables]
        if table.name not in stored:
            stored[table.name] = form.store(table)
        _replace(model, node, form.read(node, table, [t.name for t in stored[table.name]]))
    for name, tensors in stored.items():
        model.graph.initializer.remove(constants[name])
        model.graph.initializer.extend(tensors)
    if tables == "int4" and changed:
        import_domain(model, MICROSOFT)
    return len(changed)


def _replace(model: onnx.ModelProto, node: NodeProto, nodes: list[NodeProto]) -> None:
    """Put `nodes` where `node` was: the order of nodes is the order of execution."""
    place = list(model.graph.node).index(node)
    del model.graph.node[place]
    for offset, new in enumerate(nodes):
        model.graph.node.insert(place + offset, new)


def _rows(table: TensorProto) -> NDArray[np.float32]:
    return numpy_helper.to_array(table).astype(np.float32)


def _scale(table: TensorProto, scale: NDArray[np.float32]) -> TensorProto:
    """In the type of the table, which is the type of the looked-up rows."""
    return numpy_helper.from_array(
        scale.astype(helper.tensor_dtype_to_np_dtype(table.data_type)), f"{table.name}_scale"
    )


def _store_fp16(table: TensorProto) -> list[TensorProto]:
    return [numpy_helper.from_array(_rows(table).astype(np.float16), f"{table.name}_fp16")]


def _store_int8(table: TensorProto) -> list[TensorProto]:
    rows = _rows(table)
    scale = np.abs(rows).max(axis=1, keepdims=True) / 127
    scale[scale == 0] = 1
    return [
        numpy_helper.from_array(np.rint(rows / scale).astype(np.int8), f"{table.name}_int8"),
        _scale(table, scale),
    ]


def _store_int4(table: TensorProto) -> list[TensorProto]:
    rows = _rows(table)
    blocks = quantize_blocks(rows.reshape(len(rows), -1, INT4_TABLE_BLOCK), bits=4, symmetric=True)
    levels = pack(blocks.levels.reshape(rows.shape), bits=4)
    return [numpy_helper.from_array(levels, f"{table.name}_int4"), _scale(table, blocks.scale)]


def _read_fp16(node: NodeProto, table: TensorProto, stored: list[str]) -> list[NodeProto]:
    rows = f"{node.output[0]}_fp16"
    return [
        helper.make_node("Gather", [stored[0], node.input[1]], [rows], f"{node.name}_fp16"),
        helper.make_node("Cast", [rows], [node.output[0]], f"{node.name}_cast", to=table.data_type),
    ]


def _read_int8(node: NodeProto, table: TensorProto, stored: list[str]) -> list[NodeProto]:
    rows, levels, scale = (f"{node.output[0]}_{part}" for part in ("int8", "levels", "scale"))
    return [
        helper.make_node("Gather", [stored[0], node.input[1]], [rows], f"{node.name}_int8"),
        helper.make_node("Gather", [stored[1], node.input[1]], [scale], f"{node.name}_scale"),
        helper.make_node("Cast", [rows], [levels], f"{node.name}_cast", to=table.data_type),
        helper.make_node("Mul", [levels, scale], [node.output[0]], f"{node.name}_dequantize"),
    ]


def _read_int4(node: NodeProto, table: TensorProto, stored: list[str]) -> list[NodeProto]:
    del table
    return [
        helper.make_node(
            "GatherBlockQuantized", [stored[0], node.input[1], stored[1]], [node.output[0]], f"{node.name}_int4",
            domain=MICROSOFT, gather_axis=0, quantize_axis=1, block_size=INT4_TABLE_BLOCK, bits=4,
        )
    ]  # fmt: skip


_FORMS = {
    "fp16": _Form(_store_fp16, _read_fp16),
    "int8": _Form(_store_int8, _read_int8),
    "int4": _Form(_store_int4, _read_int4),
}

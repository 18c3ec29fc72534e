"""The operations of a model file that a recipe quantizes, each with its kind and its layer.

An ONNX node carries its layer in its name. The ops of a .tflite do not, so the graph's structure tells: between two
blocks exactly one tensor that stems from the tokens is alive, and each block has one SOFTMAX.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from pocketbert.inspection.tflite_file import op_kind

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

EMBEDDINGS, HEAD = "embeddings", "head"
_LOOKUPS = ("GATHER", "EMBEDDING_LOOKUP")
_ONNX_LAYER = re.compile(r"\blayers?\.(\d+)/(.*)")
_TYPES = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
_SMALL = {"INT2", "INT4", "INT8", "UINT8", "INT16", "FLOAT16"}


@dataclass(frozen=True)
class Operation:
    """An operation by the name that `exclude` knows it by: its output tensor's (TFLite) or its own (ONNX)."""

    name: str
    kind: str
    # "embeddings", "layer.0.attention", "layer.0.feed_forward", ..., "head".
    layer: str

    @property
    def pattern(self) -> str:
        """The regular expression that excludes this operation and no other."""
        # ai-edge-quantizer ends each name in ";"; ONNX Runtime's tools take a Gemm apart into MatMul and Add.
        suffix = "(_MatMul|_Add)?" if self.kind == "Gemm" else ";?"
        return f"^{re.escape(self.name)}{suffix}$"


def quantized_operations(source: Path, quantized: Path) -> list[Operation]:
    """The operations of `source` that compute in another way, or on other weights, in its `quantized` copy."""
    if source.suffix == ".onnx":
        return _quantized_onnx(source, quantized)
    before, after = _read_tflite(source), _read_tflite(quantized)
    touched = {name for op in after.ops if op.small for name in op.outputs}
    return [
        Operation(op.outputs[0], op.kind, layer)
        for op, layer in zip(before.ops, tflite_layers(before), strict=True)
        if touched.intersection(op.outputs)
    ]


@dataclass(frozen=True)
class _Op:
    kind: str
    # Names of the tensors that are computed at run time.
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shape: tuple[int, ...]
    # Whether a weight, an input or an output is stored in less than 32 bits.
    small: bool


@dataclass(frozen=True)
class _Graph:
    ops: list[_Op]
    outputs: tuple[str, ...]
    # Tokens of a row.
    length: int


def _read_tflite(path: Path) -> _Graph:
    tree = flatbuffer_utils.read_model_from_bytearray(bytearray(path.read_bytes()))
    graph = tree.subgraphs[0]
    constant = [tree.buffers[t.buffer].data is not None for t in graph.tensors]
    names = [t.name.decode() for t in graph.tensors]
    types = [_TYPES[t.type] for t in graph.tensors]
    kinds = [op_kind(tree, op) for op in graph.operators]
    # A weight that is dequantized when the model is loaded: the op that reads it is the quantized one.
    stored = {
        int(op.outputs[0]): int(op.inputs[0])
        for kind, op in zip(kinds, graph.operators, strict=True)
        if kind == "DEQUANTIZE" and constant[op.inputs[0]]
    }
    ops = []
    for kind, op in zip(kinds, graph.operators, strict=True):
        inputs, outputs = ([int(i) for i in indices if i >= 0] for indices in (op.inputs, op.outputs))
        tensors = [stored.get(i, i) for i in inputs] + outputs
        small = kind not in ("QUANTIZE", "DEQUANTIZE") and any(types[i] in _SMALL for i in tensors)
        run_time = tuple(names[i] for i in inputs if not constant[i] and i not in stored)
        shape = tuple(
            int(d) for d in (() if graph.tensors[outputs[0]].shape is None else graph.tensors[outputs[0]].shape)
        )
        ops.append(_Op(kind, run_time, tuple(names[i] for i in outputs), shape, small))
    length = max(int(graph.tensors[i].shape[-1]) for i in graph.inputs)
    return _Graph(ops, tuple(names[i] for i in graph.outputs), length)


def tflite_layers(graph: _Graph) -> list[str]:
    """The layer of each op, in the order of the file."""
    hidden = _hidden(graph)
    cuts = _cuts(graph, hidden)
    centres = [i for i, op in enumerate(graph.ops) if op.kind == "SOFTMAX" and hidden[i]]
    # A block begins behind the last place before its SOFTMAX where only the hidden state is alive.
    starts = [max((cut + 1 for cut in cuts if cut < centre), default=0) for centre in centres]
    head = _head_start(graph, hidden, centres[-1]) if centres else 0
    layers = [EMBEDDINGS] * len(graph.ops)
    for block, (start, centre) in enumerate(zip(starts, centres, strict=True)):
        end = starts[block + 1] if block + 1 < len(starts) else head
        dense = [i for i in range(centre, end) if graph.ops[i].kind in ("FULLY_CONNECTED", "CONV_2D")]
        # The first one projects the attention's output, the second one begins the feed-forward part.
        middle = dense[1] if len(dense) > 1 else end
        layers[start:middle] = [f"layer.{block}.attention"] * (middle - start)
        layers[middle:end] = [f"layer.{block}.feed_forward"] * (end - middle)
    layers[head:] = [HEAD] * (len(layers) - head)
    return layers


def _hidden(graph: _Graph) -> list[bool]:
    """Whether each op's output stems from a looked-up embedding (the attention mask does not)."""
    known: set[str] = set()
    flags = []
    for op in graph.ops:
        stems = op.kind in _LOOKUPS or bool(known.intersection(op.inputs))
        known.update(op.outputs if stems else ())
        flags.append(stems)
    return flags


def _cuts(graph: _Graph, hidden: Sequence[bool]) -> list[int]:
    """Indices of the ops after which exactly one hidden tensor is still to be read."""
    last_read = {name: i for i, op in enumerate(graph.ops) for name in op.inputs}
    last_read |= dict.fromkeys(graph.outputs, len(graph.ops))
    alive: set[str] = set()
    cuts = []
    for index, op in enumerate(graph.ops):
        if hidden[index]:
            alive.update(op.outputs)
        alive = {name for name in alive if last_read.get(name, -1) > index}
        if len(alive) == 1:
            cuts.append(index)
    return cuts


def _head_start(graph: _Graph, hidden: Sequence[bool], after: int) -> int:
    """The first op behind the encoder: its output has no axis of tokens (the last axis is never one)."""
    for index in range(after + 1, len(graph.ops)):
        if hidden[index] and graph.length not in graph.ops[index].shape[:-1]:
            return index
    return len(graph.ops)


def _quantized_onnx(source: Path, quantized: Path) -> list[Operation]:
    import onnx

    before, after = onnx.shape_inference.infer_shapes(onnx.load(source)), onnx.load(quantized)
    restored = {name for node in after.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    stored = _constants(after)
    kept = {_signature(node, stored) for node in after.graph.node if not restored.intersection(node.input)}
    halved = any(t.data_type == onnx.TensorProto.FLOAT16 for t in after.graph.initializer)
    constants = _constants(before)
    floats = {
        v.name
        for v in (*before.graph.value_info, *before.graph.output)
        if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    return [
        Operation(node.name, node.op_type, layer)
        for node, layer in zip(before.graph.node, onnx_layers(n.name for n in before.graph.node), strict=True)
        if node.op_type != "Constant"
        and floats.intersection(node.output)
        and (halved or _signature(node, constants) not in kept)
    ]


def _constants(model: "ModelProto") -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def _signature(node: "NodeProto", constants: dict[str, int]) -> tuple[Any, ...]:
    # Names of values change around a quantized neighbour.
    return node.name, node.op_type, tuple(constants.get(name) for name in node.input)


def onnx_layers(names: Iterable[str]) -> Iterator[str]:
    """The layer of each node by its name; what comes before the first block is embeddings, what comes after is head.

    Where no name tells a layer (a file of another exporter), all nodes are in one.
    """
    found = [_ONNX_LAYER.search(name) for name in names]
    blocks = [index for index, match in enumerate(found) if match]
    for index, match in enumerate(found):
        if match:
            attention = match[2].startswith("bottleneck") or "attention" in match[2]
            yield f"layer.{match[1]}.{'attention' if attention else 'feed_forward'}"
        elif not blocks:
            yield "model"
        else:
            yield EMBEDDINGS if index < blocks[0] else HEAD

"""Write a range of a graph's steps as a .tflite file of its own, its weights copied from file to file."""

import copy
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from pocketbert.inspection.tflite_file import IDENTIFIER
from pocketbert.partition.lifetime import Schedule
from pocketbert.partition.model import Graph, Stored

SIGNATURE = "serving_default"
# Constants up to this size stay inside the flatbuffer; LiteRT reads larger ones at an offset behind it, where a page
# of a neighbour is not read with them.
_INSIDE_BYTES = 1024
_ALIGNMENT = 4096
# Larger writes make larger folios of the page cache, and Linux (6.18, ext4) maps a touched one as a whole: a lookup
# in a freshly written table then made 320 KiB a row resident instead of 64.
_CHUNK = 1 << 16
# In place of an offset that is not known yet: 0 would leave no room for it.
_UNKNOWN = 2**62


def names_in(schedule: Schedule, start: int, end: int) -> dict[int, str]:
    """What the part reads that it does not compute: tensor -> name."""
    read = {tensor for step in schedule.steps[start:end] for tensor in step.reads}
    return {t: _name(schedule.graph, t) for t in schedule.crossing(start) if t in read}


def names_out(schedule: Schedule, start: int, end: int) -> dict[int, str]:
    """What it computes that is needed behind it: tensor -> name."""
    written = {tensor for step in schedule.steps[start:end] for tensor in step.writes}
    return {t: _name(schedule.graph, t) for t in schedule.crossing(end) if t in written}


def _name(graph: Graph, tensor: int) -> str:
    """The signature's name of an input or result; a tensor between parts is called by its place in the whole file."""
    return graph.inputs.get(tensor) or graph.outputs.get(tensor) or f"between.{tensor}"


def write_part(schedule: Schedule, start: int, end: int, target: Path) -> str:
    """Write the steps `start` to `end` (excluded); return the file's MD5.

    Ends of the part are named by `names_in` and `names_out`, in a signature.
    """
    part = _Part(schedule, start, end)
    with schedule.graph.path.open("rb") as source:
        return part.write(source, target)


class _Part:
    """One part's own tree, and the constants to be copied."""

    def __init__(self, schedule: Schedule, start: int, end: int) -> None:
        self._graph = schedule.graph
        steps = schedule.steps[start:end]
        operators = {op.index: op for step in steps for op in (*step.prepared, step.operator)}
        self._operators = [operators[index] for index in sorted(operators)]
        self._ends = names_in(schedule, start, end), names_out(schedule, start, end)
        used = {*self._ends[0], *(t for op in self._operators for t in (*op.inputs, *op.outputs))}
        self._tensors = sorted(used | set(self._block_scales(used)))
        self._place = {tensor: place for place, tensor in enumerate(self._tensors)}
        stored = {t: self._graph.tensors[t].stored for t in self._tensors}
        self._stored = {t: place for t, place in stored.items() if place}
        # Buffer 0 is the empty one, of all that is computed.
        self._buffers = {tensor: number for number, tensor in enumerate(self._stored, 1)}

    def _block_scales(self, tensors: Iterable[int]) -> Iterable[int]:
        """Tensors that hold the scales of blocks of others, which no operator reads."""
        for tensor in tensors:
            details = _block_details(self._graph.tree.subgraphs[0].tensors[tensor])
            if details is not None:
                yield from (t for t in (details.scales, details.zeroPoints) if t >= 0)

    def write(self, source: BinaryIO, target: Path) -> str:
        """Lay the file out, then copy the constants behind it."""
        sizes = [stored.size_bytes for stored in self._stored.values()]
        offset = _aligned(len(self._packed(source, [_UNKNOWN] * len(sizes))))
        offsets = []
        for size in sizes:
            offsets.append(offset)
            offset += _aligned(size) if size > _INSIDE_BYTES else 0
        digest = hashlib.md5(usedforsecurity=False)
        with target.open("wb") as stream:
            for chunk in self._content(source, offsets):
                stream.write(chunk)
                digest.update(chunk)
        return digest.hexdigest()

    def _content(self, source: BinaryIO, offsets: Sequence[int]) -> Iterable[bytes]:
        head = self._packed(source, offsets)
        yield head
        yield bytes(_aligned(len(head)) - len(head))
        for stored in self._stored.values():
            if stored.size_bytes <= _INSIDE_BYTES:
                continue
            source.seek(stored.offset)
            left = stored.size_bytes
            while left:
                chunk = source.read(min(left, _CHUNK))
                if not chunk:
                    raise OSError(f"{self._graph.path} became shorter while it was read")
                left -= len(chunk)
                yield chunk
            yield bytes(_aligned(stored.size_bytes) - stored.size_bytes)

    def _packed(self, source: BinaryIO, offsets: Sequence[int]) -> bytes:
        """The flatbuffer, as long for every offset that is not 0."""
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self._tree(source, offsets).Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())

    def _tree(self, source: BinaryIO, offsets: Sequence[int]) -> Any:
        whole = self._graph.tree
        tree = schema.ModelT()
        tree.version, tree.description, tree.operatorCodes = whole.version, whole.description, whole.operatorCodes
        places = zip(self._stored.values(), offsets, strict=True)
        tree.buffers = [schema.BufferT(), *(self._buffer(stored, offset, source) for stored, offset in places)]
        graph = schema.SubGraphT()
        graph.name = b"main"
        graph.tensors = [self._tensor(t) for t in self._tensors]
        graph.operators = [self._operator(op.index) for op in self._operators]
        graph.inputs, graph.outputs = (np.array([self._place[t] for t in end], np.int32) for end in self._ends)
        tree.subgraphs, tree.signatureDefs = [graph], [self._signature()]
        return tree

    def _buffer(self, stored: Stored, offset: int, source: BinaryIO) -> Any:
        buffer = schema.BufferT()
        if stored.size_bytes <= _INSIDE_BYTES:
            source.seek(stored.offset)
            buffer.data = np.frombuffer(source.read(stored.size_bytes), np.uint8)
        else:
            buffer.offset, buffer.size = offset, stored.size_bytes
        return buffer

    def _tensor(self, tensor: int) -> Any:
        own = copy.copy(self._graph.tree.subgraphs[0].tensors[tensor])
        own.buffer = self._buffers.get(tensor, 0)
        # The runtime finds the ends by name.
        own.name = (self._ends[0] | self._ends[1]).get(tensor, "").encode() or own.name
        details = _block_details(own)
        if details is not None:
            own.quantization, moved = copy.copy(own.quantization), copy.copy(details)
            moved.scales, moved.zeroPoints = (self._place.get(t, -1) for t in (details.scales, details.zeroPoints))
            own.quantization.details = moved
        return own

    def _operator(self, index: int) -> Any:
        own = copy.copy(self._graph.tree.subgraphs[0].operators[index])
        own.inputs, own.outputs = (
            np.array([self._place.get(int(t), -1) for t in tensors], np.int32) for tensors in (own.inputs, own.outputs)
        )
        return own

    def _signature(self) -> Any:
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = SIGNATURE.encode(), 0
        signature.inputs, signature.outputs = (
            [self._entry(tensor, name) for tensor, name in end.items()] for end in self._ends
        )
        return signature

    def _entry(self, tensor: int, name: str) -> Any:
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), self._place[tensor]
        return entry


def _block_details(tensor: Any) -> Any:
    stored = tensor.quantization
    blockwise = schema.QuantizationDetails.BlockwiseQuantization
    return stored.details if stored is not None and stored.detailsType == blockwise else None


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT

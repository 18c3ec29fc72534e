"""Which values of a model file are the outputs of its layers, told by the structure of the graph alone.

Names do not last: the TFLite converter gives its own, optimizers and quantizers rename and fuse. The residual stream
does last. The input of a transformer block is what both its attention and a path around it read, so it is the first
value behind the block before that (1) the block's softmax depends on and (2) something that the softmax does not
depend on reads too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pocketbert.errors import ProofError
from pocketbert.inspection.graph import Graph, Node

_LOOKUPS = {"Gather", "GATHER", "EMBEDDING_LOOKUP"}
# Look-up, sum and norm in one node, by ONNX Runtime's optimizer.
_FUSED_EMBEDDINGS = {"EmbedLayerNormalization", "QEmbedLayerNormalization"}
_ATTENTIONS = {
    "Softmax",
    "QLinearSoftmax",
    "SOFTMAX",
    "Attention",
    "MultiHeadAttention",
    "QAttention",
    "PackedAttention",
}
# What they give is known from a shape, whatever the numbers are.
_SHAPES = {"Shape", "SHAPE", "Size", "RANK"}
_LINEAR = {
    "MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
    "QLinearMatMul", "QGemm", "MatMulNBits", "FULLY_CONNECTED", "CONV_2D", "BATCH_MATMUL",
}  # fmt: skip
# Integers without their scale: the floats before them are read instead.
_QUANTIZERS = {"QuantizeLinear", "DynamicQuantizeLinear"}


@dataclass(frozen=True)
class _Flow:
    """What each value depends on; sets of nodes are bit masks, bit i for node i."""

    nodes: tuple[Node, ...]
    producer: Mapping[str, int]
    readers: Mapping[str, tuple[int, ...]]
    # Nodes that each node depends on, itself included.
    behind: tuple[int, ...]
    # Nodes that depend on a graph input, and those that depend on an embedding table read by a graph input.
    data: int
    embedded: int
    # Nodes whose result is used.
    live: int

    def depends(self, value: str, nodes: int) -> bool:
        """Whether the value depends on one of the nodes."""
        maker = self.producer.get(value)
        return maker is not None and bool(self.behind[maker] & nodes)


class LayerGraph:
    """The layers of a file's graph; raises ProofError where it has no blocks with attention."""

    def __init__(self, graph: Graph, output: str) -> None:
        self._flow = flow = _follow(graph, output)
        self._graph = graph
        self.output = output
        blocks, last = _block_inputs(flow)
        if not blocks:
            raise ProofError(
                "no layer can be told from the graph: it has no attention (softmax) behind an embedding table",
                "Compare its logits alone.",
            )
        # The embeddings' output and that of each encoder layer but the last.
        self.blocks = tuple(self._float(value) for value in blocks)
        self._tail = [i for i, behind in enumerate(flow.behind) if behind >> last & 1 and flow.live >> i & 1]

    def last_candidates(self) -> tuple[str, ...]:
        """Values that may be the last encoder layer's output: the last one of the blocks' shape is.

        They follow from the last attention and read neither mask nor ids anew, as a masked pooling does.
        """
        flow, mixed, found = self._flow, set[str](), []
        for index in self._tail:
            node = flow.nodes[index]
            foreign = (v for v in node.inputs if self._is_data(v) and not flow.depends(v, flow.embedded))
            if any(v in mixed for v in node.inputs) or any(True for _ in foreign):
                mixed.update(node.outputs)
            else:
                found += [self._float(v) for v in node.outputs if v]
        return tuple(dict.fromkeys(found))

    def head_inputs(self, last: str) -> tuple[str, ...]:
        """What each linear layer behind the last encoder layer's output `last` reads: the pooled row first."""
        flow = self._flow
        maker = 1 << flow.producer[last]
        found = []
        for index in self._tail:
            node = flow.nodes[index]
            if node.op not in _LINEAR or index == flow.producer[last] or not flow.behind[index] & maker:
                continue
            operands = node.inputs[:2]
            read = [v for v in operands if flow.depends(v, maker)]
            if len(read) == 1 and not any(self._is_data(v) for v in operands if v not in read):
                found.append(self._float(read[0]))
        return tuple(dict.fromkeys(found))

    def _is_data(self, value: str) -> bool:
        return value in self._graph.inputs or self._flow.depends(value, self._flow.data)

    def _float(self, value: str) -> str:
        maker = self._flow.producer.get(value)
        if maker is None or self._flow.nodes[maker].op not in _QUANTIZERS:
            return value
        return self._float(self._flow.nodes[maker].inputs[0])


def _follow(graph: Graph, output: str) -> _Flow:
    producer = {value: i for i, node in enumerate(graph.nodes) for value in node.outputs if value}
    readers: dict[str, list[int]] = {}
    behind: list[int] = []
    data = embedded = 0
    fixed = graph.constant_sources()
    # Embeddings that the host looks up: floats [rows, tokens, width].
    given = {value for value in graph.inputs if len(graph.shapes.get(value, ())) == 3}
    for i, node in enumerate(graph.nodes):
        bit, makers = 1 << i, [producer[v] for v in node.inputs if v in producer and producer[v] < i]
        for value in node.inputs:
            readers.setdefault(value, []).append(i)
        if node.op in _SHAPES:
            behind.append(bit)
            continue
        behind.append(bit | _union(behind[maker] for maker in makers))
        if any(v in graph.inputs for v in node.inputs) or behind[i] & data:
            data |= bit
        if behind[i] & embedded or (data & bit and (_reads_table(node, fixed) or not given.isdisjoint(node.inputs))):
            embedded |= bit
    live = behind[producer[output]] if output in producer else 0
    return _Flow(graph.nodes, producer, {v: tuple(r) for v, r in readers.items()}, tuple(behind), data, embedded, live)


def _union(masks: Iterator[int]) -> int:
    union = 0
    for mask in masks:
        union |= mask
    return union


def _reads_table(node: Node, fixed: Mapping[str, Sequence[str]]) -> bool:
    """Whether a node looks rows up in a constant table (TFLite's EMBEDDING_LOOKUP reads the ids first)."""
    if node.op in _FUSED_EMBEDDINGS:
        return True
    return node.op in _LOOKUPS and any(value in fixed for value in node.inputs[:2])


def _block_inputs(flow: _Flow) -> tuple[list[str], int]:
    """The first value of each block, and the attention node of the last block."""
    values, last = [], -1
    for index, node in enumerate(flow.nodes):
        if node.op not in _ATTENTIONS or not flow.behind[index] & flow.embedded or not flow.live >> index & 1:
            continue
        value = next(_shared(flow, index, last), None)
        if value is not None:
            values.append(value)
            last = index
    return values, last


def _shared(flow: _Flow, attention: int, previous: int) -> Iterator[str]:
    """Values behind the previous attention that this one and something beside it depend on, in the file's order."""
    before = flow.behind[attention]
    for index in range(previous + 1, attention):
        if not before >> index & 1 or not flow.behind[index] & flow.embedded:
            continue
        if previous >= 0 and not flow.behind[index] >> previous & 1:
            continue
        for value in flow.nodes[index].outputs:
            around = (r for r in flow.readers.get(value, ()) if not before >> r & 1 and flow.live >> r & 1)
            if any(flow.nodes[r].op not in _SHAPES for r in around):
                yield value

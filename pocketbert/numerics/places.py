"""What the values of a BERT-family graph are: the cause of a wide range, and the layer.

Structure decides causes, because a converter's names do not tell: what a softmax reads is an attention score or a
mask, what a square root of a mean reads is a variance. Layers go by name, else by the order of the softmaxes.
"""

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property

from pocketbert.errors import ProofError
from pocketbert.inspection.graph import Graph, Node
from pocketbert.numerics.layers_graph import LayerGraph

SOFTMAX = frozenset({"Softmax", "SOFTMAX"})
PRODUCTS = frozenset({"MatMul", "Gemm", "BATCH_MATMUL", "FULLY_CONNECTED", "Einsum", "MatMulNBits"})
NORMS = frozenset({"LayerNormalization", "SimplifiedLayerNormalization"})
MEANS = frozenset({"ReduceMean", "MEAN"})
SUMS = frozenset({"ReduceSum", "SUM"})
ROOTS = frozenset({"Sqrt", "SQRT", "RSQRT"})
DIVISIONS = frozenset({"Div", "DIV"})
ADDITIVE = frozenset({"Add", "ADD", "Sub", "SUB", "Sum", "ADD_N", "SQUARED_DIFFERENCE", "Max", "MAXIMUM", "Clip"})
SUBTRACTIONS = frozenset({"Sub", "SUB", "SQUARED_DIFFERENCE"})
MOVES = frozenset(
    {"Cast", "CAST", "Reshape", "RESHAPE", "Transpose", "TRANSPOSE", "Identity", "Expand", "BROADCAST_TO", "Unsqueeze"}
    | {"EXPAND_DIMS", "Squeeze", "SQUEEZE", "Slice", "SLICE", "STRIDED_SLICE", "DEQUANTIZE", "Concat", "TILE"}
)
_SCALES = frozenset({"Mul", "MUL"}) | DIVISIONS
_ELEMENTWISE = frozenset({"Add", "ADD", "Sub", "SUB", "Where", "SELECT", "SELECT_V2"}) | _SCALES | MOVES
_BY_OP = {
    "attention probabilities": SOFTMAX,
    "LayerNorm": NORMS,
    "embeddings": frozenset({"Gather", "GATHER", "EMBEDDING_LOOKUP"}),
    "activation": frozenset({"Erf", "Gelu", "GELU", "Tanh", "TANH", "Relu", "RELU", "LeakyRelu", "LEAKY_RELU"}),
    "linear layer": PRODUCTS,
    "sum of hidden states": frozenset({"Add", "ADD"}),
}
_INTEGER_PRODUCTS = frozenset({"MatMulInteger", "ConvInteger"})
_LAYER_NAME = re.compile(r"(?:^|[./_])layers?[._/](\d+)(?:[./_]|$)")
_PART_NAMES = {
    "embeddings": re.compile(r"(^|[./])\w*embeddings?([._/]|$)"),
    "head": re.compile(r"(^|[./])(head|classifier|pre_classifier|pooler|cls|lm_head|vocab_\w+)([._/]|$)"),
}


class Places:
    """Answers about the values of one graph."""

    def __init__(self, graph: Graph, outputs: Sequence[str]) -> None:
        self.graph, self._outputs = graph, outputs
        self.producers = graph.producers()
        self.consumers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for value in filter(None, node.inputs):
                self.consumers.setdefault(value, []).append(node)
        self._fixed = graph.constant_sources()
        self._index = {node.name: index for index, node in enumerate(graph.nodes)}

    def node_of(self, value: str) -> Node | None:
        """The node that makes a value or, for a constant, the first one that reads it."""
        return self.producers.get(value) or next(iter(self.consumers.get(value, ())), None)

    def cause(self, value: str) -> str:
        """What a value is, in words of the architecture."""
        constant = value in self.graph.constants
        kind = next((name for name, values in self._kinds.items() if value in values), None)
        if kind:
            return (
                {"mask": "mask constant", "LayerNorm variance": "LayerNorm epsilon"}.get(kind, kind)
                if constant
                else kind
            )
        if constant:
            return "constant" if math.prod(self.graph.constants[value].shape) == 1 else "weights"
        node = self.producers.get(value)
        if node is None:
            return "input"
        source = self.producers.get(node.inputs[0]) if node.inputs else None
        if source is not None and source.op in _INTEGER_PRODUCTS:
            return "sums of integer products"
        return next((name for name, ops in _BY_OP.items() if node.op in ops), f"output of {node.op}")

    def layer(self, value: str) -> str:
        """`layer 3` (counted from 0), `embeddings`, `head`, or "" where neither name nor order tells."""
        node = self.node_of(value)
        name = f"{value}/{node.name if node else ''}"
        if found := _LAYER_NAME.search(name):
            return f"layer {found.group(1)}"
        for part, pattern in _PART_NAMES.items():
            if pattern.search(name):
                return part
        if node is None or self._is_named or "mask" in self.cause(value):
            return ""
        index = self._index[node.name]
        entered = [number for number, start in enumerate(self._starts) if start <= index]
        if not entered:
            return "embeddings" if self._starts and self._is_embedded(value) else ""
        pooled = index > self._last_softmax and self._rows(node) == 1
        return "head" if pooled else f"layer {entered[-1]}"

    def scores(self) -> list[tuple[str, str | None, str]]:
        """Of each softmax over attention scores: scores before the mask, the mask (None without), probabilities."""
        found: list[tuple[str, str | None, str]] = []
        for node in self.graph.nodes:
            if node.op in SOFTMAX and self.cause(node.inputs[0]) == "attention scores":
                value = node.inputs[0]
                while (producer := self.producers[value]).op in MOVES:
                    value = producer.inputs[0]
                others = [v for v in producer.inputs if v and self.cause(v) in ("mask", "mask constant")]
                scored = [v for v in producer.inputs if self.cause(v) == "attention scores"]
                masked = producer.op not in _SCALES and producer.op not in PRODUCTS and others and scored
                found.append((scored[0], others[-1], node.outputs[0]) if masked else (value, None, node.outputs[0]))
        return found

    @cached_property
    def _kinds(self) -> dict[str, set[str]]:
        """Cause -> values; the first match counts."""
        scores: set[str] = set()
        masks: set[str] = set()
        for node in self.graph.nodes:
            if node.op in SOFTMAX:
                upstream = self._back(node.inputs[0], _ELEMENTWISE)
                own = {v for v in upstream if any(map(self._is_score_product, self._back(v, _ELEMENTWISE)))}
                scores |= own
                # Without a product it is the softmax of something else.
                masks |= {v for v in upstream - own if own and not self._scales(v, own)}
        variances = {v for node in self.graph.nodes if node.op in ROOTS for v in self._variance(node)}
        means = {n.outputs[0] for n in self.graph.nodes if n.op in MEANS and self._centres(n)}
        sums = {n.outputs[0] for n in self.graph.nodes if n.op in SUMS | MEANS} - variances - means - masks
        summed = {v for out in sums for v in self.producers[out].inputs[:1] if v in self.producers}
        return {
            "attention scores": scores,
            "mask": masks,
            "LayerNorm variance": variances,
            "LayerNorm mean": means,
            "pooling sums": sums | {v for v in summed if self.producers[v].op in _SCALES},
        }

    def _back(self, value: str, through: frozenset[str]) -> set[str]:
        """`value` and what it is made of by nodes of the kinds `through`."""
        found: set[str] = set()
        queue = [value]
        while queue:
            current = queue.pop()
            if not current or current in found:
                continue
            found.add(current)
            node = self.producers.get(current)
            if node is not None and node.op in through:
                queue.extend(node.inputs)
        return found

    def _is_score_product(self, value: str) -> bool:
        node = self.producers.get(value)
        return node is not None and node.op in PRODUCTS and not any(v in self._fixed for v in node.inputs[:2])

    def _scales(self, value: str, scores: set[str]) -> bool:
        """Whether a value only multiplies scores, such as 1 / sqrt(width)."""
        readers = [n for n in self.consumers.get(value, ()) if scores & set(n.outputs)]
        return bool(readers) and all(n.op in _SCALES for n in readers)

    def _variance(self, root: Node) -> set[str]:
        """From the squares to the square root; empty where no mean or sum is rooted."""
        upstream = self._back(root.inputs[0], ADDITIVE | MOVES)
        reductions = [self.producers[v] for v in upstream if v in self.producers]
        squares = {node.inputs[0] for node in reductions if node.op in MEANS | SUMS}
        return upstream | squares | set(root.outputs) if squares else set()

    def _centres(self, mean: Node) -> bool:
        """Whether a mean is subtracted from what it is the mean of."""
        readers = self.consumers.get(mean.outputs[0], ())
        return any(n.op in SUBTRACTIONS and mean.inputs[0] in n.inputs for n in readers)

    @cached_property
    def _is_named(self) -> bool:
        return any(_LAYER_NAME.search(node.name) for node in self.graph.nodes)

    @cached_property
    def _last_softmax(self) -> int:
        return max((i for i, node in enumerate(self.graph.nodes) if node.op in SOFTMAX), default=len(self.graph.nodes))

    @cached_property
    def _starts(self) -> list[int]:
        """Index of the first node of each layer; empty where structure does not tell."""
        for output in self._outputs:
            with suppress(ProofError):
                blocks = LayerGraph(self.graph, output).blocks
                return sorted(min(self._index[node.name] for node in self.consumers[value]) for value in blocks)
        return []

    def _is_embedded(self, value: str) -> bool:
        """Whether a value is made of rows of a table, and not of the mask alone."""
        upstream = self._back(value, frozenset(node.op for node in self.graph.nodes))
        return any(v in self.producers and self.producers[v].op in _BY_OP["embeddings"] for v in upstream)

    def _rows(self, node: Node) -> int | None:
        shape = self.graph.shapes.get(node.outputs[0], ())[:-1]
        return None if None in shape else math.prod(n for n in shape if n is not None)

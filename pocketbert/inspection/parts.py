"""Bytes of a file's constants, by part of the model: embeddings, encoder, head."""

import math
import re
from collections.abc import Iterator

from pocketbert.inspection.graph import Graph, ModelFile
from pocketbert.inspection.lookups import LOOKUP_OPS

PARTS = ("embeddings", "encoder", "head", "other")
_NAMES = {
    "head": re.compile(r"(^|[./])(head|classifier|pre_classifier|pooler|score|cls)([._/]|$)"),
    "embeddings": re.compile(r"(^|[./])\w*embeddings?([._/]|$)"),
    "encoder": re.compile(r"(^|[./])(encoder|transformer|layers?)([._/]|$)"),
}
_MATMULS = frozenset({"FULLY_CONNECTED", "CONV_2D", "BATCH_MATMUL"})


def bytes_by_part(model: ModelFile) -> dict[str, int]:
    """Bytes of constants by part, all four keys.

    torch and ONNX: by the names of the tensor and of the node that reads it. TFLite, whose names are the converter's:
    by order. Embeddings are what is read up to the first product with a weight matrix, the head what is read behind
    the last softmax by operators whose result is a single row (pooled). "other" is what neither rule can place.
    """
    placed = dict(_by_order(model.graph) if model.format == "tflite" else _by_name(model.graph))
    sizes = dict.fromkeys(PARTS, 0)
    for value, constant in model.graph.constants.items():
        sizes[placed.get(value, "other")] += constant.size_bytes
    return sizes


def bytes_by_dtype(model: ModelFile) -> dict[str, int]:
    """Bytes of constants by dtype, the largest first."""
    sizes: dict[str, int] = {}
    for constant in model.graph.constants.values():
        sizes[constant.dtype] = sizes.get(constant.dtype, 0) + constant.size_bytes
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _by_name(graph: Graph) -> Iterator[tuple[str, str]]:
    readers: dict[str, list[str]] = {}
    for _, node, constants in graph.computing_nodes():
        for constant in constants:
            readers.setdefault(constant, []).append(f"{'embeddings' if node.op in LOOKUP_OPS else ''}/{node.name}")
    for value in graph.constants:
        for name in (value, *readers.get(value, ())):
            part = next((part for part, pattern in _NAMES.items() if pattern.search(name)), None)
            if part:
                yield value, part
                break


def _by_order(graph: Graph) -> Iterator[tuple[str, str]]:
    steps = list(graph.computing_nodes())
    products = (i for i, node, read in steps if node.op in _MATMULS and any(_is_matrix(graph, c) for c in read))
    first_product = next(products, len(graph.nodes))
    last_softmax = max((i for i, node, _ in steps if node.op == "SOFTMAX"), default=len(graph.nodes))
    seen: set[str] = set()
    for index, node, read in steps:
        pooled = index > last_softmax and all(_rows(graph, output) == 1 for output in node.outputs)
        part = "embeddings" if index < first_product else "head" if pooled else "encoder"
        for constant in read:
            # One that several operators share counts where it is read first.
            if constant not in seen:
                seen.add(constant)
                yield constant, part


def _is_matrix(graph: Graph, value: str) -> bool:
    return sum(n > 1 for n in graph.constants[value].shape) >= 2


def _rows(graph: Graph, value: str) -> int | None:
    shape = [n for n in graph.shapes.get(value, ())[:-1] if n is not None]
    return math.prod(shape)

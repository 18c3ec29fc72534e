"""A model file as plain data, the same for TFLite, ONNX and torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pocketbert.runtimes.base import TensorSpec


@dataclass(frozen=True)
class Constant:
    """A tensor that is stored in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True)
class Node:
    """One operator. Values are named by strings that are unique in the graph; an absent input is ""."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """The operators of a file in the order of execution, and the constants that they read."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Constant]
    # Shapes of the values as far as the file says them; None stands for a dynamic dimension.
    shapes: Mapping[str, tuple[int | None, ...]]
    # Value -> name of the graph's input.
    inputs: Mapping[str, str]

    def producers(self) -> dict[str, Node]:
        """The node that makes each value."""
        return {output: node for node in self.nodes for output in node.outputs}

    def constant_sources(self) -> dict[str, tuple[str, ...]]:
        """Values that depend on constants alone (dequantized, transposed, ...) -> the constants behind them."""
        sources: dict[str, tuple[str, ...]] = {name: (name,) for name in self.constants}
        for node in self.nodes:
            present = [value for value in node.inputs if value]
            if present and all(value in sources for value in present):
                behind = tuple(dict.fromkeys(name for value in present for name in sources[value]))
                sources.update(dict.fromkeys(node.outputs, behind))
        return sources

    def computing_nodes(self) -> Iterator[tuple[int, Node, tuple[str, ...]]]:
        """Nodes that work on the input (not on constants alone): index, node, constants behind its inputs."""
        sources = self.constant_sources()
        for index, node in enumerate(self.nodes):
            if not all(output in sources for output in node.outputs):
                yield index, node, tuple(name for value in node.inputs for name in sources.get(value, ()))


@dataclass(frozen=True)
class Signature:
    """A named entry of a TFLite file."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class OpUse:
    """An operator with its version (None where the format has none) and how often it occurs.

    `version` is what its types ask for where the file states less, which then stands in `stated`; `unlisted` says that
    no table knows what they ask for.
    """

    op: str
    version: int | None
    count: int
    custom: bool = False
    stated: int | None = None
    unlisted: bool = False


@dataclass(frozen=True)
class ModelFile:
    """All that a reader finds in one file."""

    format: str
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ops: tuple[OpUse, ...]
    graph: Graph
    signatures: tuple[Signature, ...] = ()
    # ONNX: domain -> version of the operator set, "" being ONNX's own.
    opsets: Mapping[str, int] = field(default_factory=dict)
    # Facts of one format only: opset, ir_version, producer, min_runtime_version, architecture, ...
    facts: Mapping[str, str] = field(default_factory=dict)

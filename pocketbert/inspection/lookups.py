"""Table lookups (embeddings) whose index can run past the end of the table."""

from dataclasses import asdict, dataclass
from typing import Any

from pocketbert.inspection.graph import Graph, ModelFile, Node

# Operator -> positions of (table, indices) among its inputs.
LOOKUP_OPS = {
    "GATHER": (0, 1),
    "EMBEDDING_LOOKUP": (1, 0),
    "Gather": (0, 1),
    # ONNX Runtime's own, of int4 tables.
    "GatherBlockQuantized": (0, 1),
}
# Operators that hand an index on as it is -> the position of the input that they hand on.
_CARRIERS = {
    **dict.fromkeys(("RESHAPE", "CAST", "EXPAND_DIMS", "SQUEEZE", "TRANSPOSE", "SLICE", "STRIDED_SLICE"), 0),
    **dict.fromkeys(("Reshape", "Cast", "Unsqueeze", "Squeeze", "Identity", "Flatten", "Transpose", "Slice"), 0),
    # The torch exporter's own handling of negative indices.
    **dict.fromkeys(("SELECT", "SELECT_V2", "Where"), 2),
    **dict.fromkeys(("MAXIMUM", "Max"), 0),
}
# Operators that bound an index from above.
_GUARDS = dict.fromkeys(("MINIMUM", "FLOOR_MOD", "Clip", "Min", "Mod"), 0)


@dataclass(frozen=True)
class Lookup:
    """One table and what indexes it."""

    node: str
    table: str
    rows: int
    # The graph's input behind the indices; None where they are computed (positions).
    index: str | None
    guarded: bool
    # "ok", "out of bounds" or "unknown".
    verdict: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def find_lookups(model: ModelFile, vocabulary: int | None) -> list[Lookup]:
    """Every lookup in a constant table by an index that the file does not fix; the largest table first.

    `vocabulary` is the number of token ids, 0 to vocabulary - 1. The input of the largest table is taken as the token
    ids, whatever it is called.
    """
    found = _in_torch(model) if model.format == "torch" else _in_graph(model.graph)
    found.sort(key=lambda lookup: -lookup[2])
    ids = next((index for *_, index, _ in found if index is not None), None)
    length = next((spec.shape[1] for spec in model.inputs if len(spec.shape) == 2), None)
    return [
        Lookup(node, table, rows, index, guarded, *_judge(rows, index, index == ids, guarded, vocabulary, length))
        for node, table, rows, index, guarded in found
    ]


def _judge(
    rows: int, index: str | None, is_ids: bool, guarded: bool, vocabulary: int | None, length: int | None
) -> tuple[str, str]:
    """Verdict and reason of one lookup."""
    if guarded:
        return "ok", "the index is bounded in the graph"
    if index is None:
        if length is None:
            return "ok", f"positions: inputs of more than {rows} tokens would run out of bounds"
        short = length > rows
        return ("out of bounds" if short else "ok"), f"positions: {rows} rows for inputs of {length} tokens"
    if not is_ids:
        return "ok", f"{index} must stay in 0 to {rows - 1}; nothing in the graph checks it"
    if vocabulary is None:
        return "unknown", f"ids over {rows - 1} run out of bounds; give --vocab-size or keep the tokenizer beside it"
    if vocabulary > rows:
        return "out of bounds", f"the vocabulary has ids up to {vocabulary - 1}, the table ends at {rows - 1}"
    return "ok", f"{vocabulary} ids, {rows} rows"


def _in_graph(graph: Graph) -> list[tuple[str, str, int, str | None, bool]]:
    producers, sources = graph.producers(), graph.constant_sources()
    found = []
    for node in graph.nodes:
        if node.op not in LOOKUP_OPS:
            continue
        table, indices = (node.inputs[position] for position in LOOKUP_OPS[node.op])
        # A vector is a table too: of each id's row, where tokens share them.
        held = [graph.constants[name] for name in sources.get(table, ()) if len(graph.constants[name].shape) in (1, 2)]
        if indices in sources or not held or min(held[0].shape) < 2:
            continue
        index, guarded = _origin(indices, producers, graph)
        found.append((node.name, held[0].name, held[0].shape[0], index, guarded))
    return found


def _origin(value: str, producers: dict[str, Node], graph: Graph) -> tuple[str | None, bool]:
    """The graph's input that a value carries unchanged (None where it is computed), and whether it is bounded."""
    guarded = False
    while value not in graph.inputs:
        node = producers.get(value)
        position = (_CARRIERS | _GUARDS).get(node.op) if node is not None else None
        if node is not None and node.op in LOOKUP_OPS:
            # What comes out of a constant table lies in it, whatever the index was.
            table, position = LOOKUP_OPS[node.op]
            guarded = guarded or node.inputs[table] in graph.constants
        if node is None or position is None:
            return None, guarded
        guarded = guarded or node.op in _GUARDS
        value = node.inputs[position]
    return graph.inputs[value], guarded


def _in_torch(model: ModelFile) -> list[tuple[str, str, int, str | None, bool]]:
    """By transformers' names of the tables."""
    roles = {"word_embeddings": "input_ids", "token_type_embeddings": "token_type_ids", "position_embeddings": None}
    return [
        (name.removesuffix(".weight"), name, constant.shape[0], roles[role], False)
        for name, constant in model.graph.constants.items()
        for role in roles
        if name.endswith(f"{role}.weight")
    ]

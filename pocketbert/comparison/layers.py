"""The layers of two files of any origin on the same rows: where they part, or why that cannot be told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pocketbert.comparison.rows import Row
from pocketbert.comparison.side import Side
from pocketbert.errors import DeviceError, ProofError
from pocketbert.numerics.layers import FLOAT32_LIMIT, LayerFigures, States, compare_states, first_divergence


@dataclass(frozen=True)
class LayerTable:
    """The layers that both have, in order, on `rows` rows; empty where `said` tells why."""

    layers: tuple[LayerFigures, ...]
    rows: int
    limit: float
    said: tuple[str, ...]

    @property
    def first_divergence(self) -> LayerFigures | None:
        """The first layer beyond the limit."""
        return first_divergence(self.layers, self.limit)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        first = self.first_divergence
        return {
            "rows": self.rows,
            "limit": self.limit,
            "first_divergence": first and first.layer,
            "layers": [layer.as_dict() for layer in self.layers],
            "said": list(self.said),
        }

    def verdict(self) -> str | None:
        """Where the two part; None where no layer was compared."""
        if not self.layers:
            return None
        first = self.first_divergence
        if first is None:
            return f"no layer is beyond {self.limit:.3g} of its spread"
        return f"the first layer that diverges is {first.layer}, {first.rel_diff:.3g} of its spread"


def compare_layers(first: Side, second: Side, rows: Sequence[Row], limit: float | None) -> LayerTable:
    """Compare every layer that both models have; differences are relative to the layer's own spread in `first`."""
    bound = FLOAT32_LIMIT if limit is None else limit
    said: list[str] = []
    readers = [_reader(side, said) for side in (first, second)]
    if not all(readers):
        return LayerTable((), len(rows), bound, tuple(said))
    try:
        reference, candidate = ([reader(row) for row in rows] for reader in readers if reader)
    except (ProofError, DeviceError) as error:
        return LayerTable((), len(rows), bound, (f"layers are not compared: {error.cause}",))
    said += [
        f"{side.path}: layers are told by the structure of its graph" for side in (first, second) if side.path.is_file()
    ]
    depths = [sum(name.startswith("layer.") for name in states[0]) for states in (reference, candidate)]
    if depths[0] != depths[1]:
        said = [f"layers are not compared: A has {depths[0]} encoder layers, B has {depths[1]}"]
        return LayerTable((), len(rows), bound, tuple(said))
    figures = compare_states(reference, candidate, [row["attention_mask"][0] for row in rows])
    compared = {layer.layer for layer in figures}
    left = [name for name in dict.fromkeys([*reference[0], *candidate[0]]) if name not in compared]
    if left:
        said.append(f"not compared, as not both give them in floating point and of one width: {', '.join(left)}")
    return LayerTable(tuple(figures), len(rows), bound, tuple(said))


def _reader(side: Side, said: list[str]) -> Callable[[Row], States] | None:
    """What gives the layers' outputs of a row; None where the layers cannot be told, which is said."""
    try:
        return side.layers()
    except (ProofError, DeviceError) as error:
        said.append(f"layers are not compared: {side.path}: {error.cause}")
        return None

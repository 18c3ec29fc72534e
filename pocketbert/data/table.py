"""What a source of labelled text is read into: a table a split."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# The one key of a source that has no splits of its own.
WHOLE = "all"

_SPLIT_NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True)
class Table:
    """Columns of equal length as they were read (cells are str, int, float, bool, None or lists of these)."""

    columns: Mapping[str, list[object]]
    source: str
    # Class names of the columns whose integers stand for them (ClassLabel features).
    class_names: Mapping[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def split_named(name: str) -> str | None:
    """The split (train, valid, test) that a file or a hub split of this name stands for."""
    return next((split for split, names in _SPLIT_NAMES.items() if name.casefold() in names), None)

"""Turn raw cells into labelled texts: drop what cannot be used, find duplicates and contradictions."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pocketbert.data.columns import Columns
from pocketbert.data.table import Table
from pocketbert.errors import DataError


@dataclass(frozen=True)
class Row:
    """One usable row; `labels` holds one name, or any number of sorted names in a multi-label task."""

    text: str
    labels: tuple[str, ...]

    @property
    def key(self) -> str:
        """Identity of the text, ignoring case and white space."""
        return "".join(self.text.split()).casefold()


def clean_table(table: Table, columns: Columns, separator: str | None, dropped: Counter[str]) -> list[Row]:
    """Usable rows in file order; `dropped` counts the others by reason. Raises DataError.

    White space in texts and labels is collapsed; nothing else is changed. A missing cell is empty, null or NaN; a
    label -1 (or the name -1) is missing too. Integers become names, through the column's class names if it has any.
    """
    names = table.class_names.get(columns.label)
    rows: list[Row] = []
    for text_cell, label_cell in zip(table.columns[columns.text], table.columns[columns.label], strict=True):
        text = _text(text_cell, columns.text, table)
        labels = _labels(label_cell, names, separator, table)
        if not text:
            dropped["missing_text"] += 1
        elif labels is None:
            dropped["missing_label"] += 1
        else:
            rows.append(Row(text, labels))
    return rows


def is_multi_label(tables: Iterable[Table], columns: Columns, separator: str | None) -> bool:
    """Whether rows may carry several labels: a separator is set, or the label column holds lists."""
    if separator is not None:
        return True
    return any(isinstance(cell, list) for table in tables for cell in table.columns[columns.label])


def class_order(rows: Iterable[Row], tables: Iterable[Table], columns: Columns) -> list[str]:
    """The classes that occur: in the order of the column's class names, else by number, else alphabetically."""
    seen = {label for row in rows for label in row.labels}
    for table in tables:
        names = table.class_names.get(columns.label)
        if names and seen <= set(names):
            return [name for name in names if name in seen]
    if all(re.fullmatch(r"\d+", label) for label in seen):
        return sorted(seen, key=int)
    return sorted(seen)


def drop_repeats(rows: Sequence[Row]) -> list[Row]:
    """The first of each group of rows with the same text and labels."""
    return list({(row.key, row.labels): row for row in reversed(rows)}.values())[::-1]


def drop_known(rows: Sequence[Row], *others: Sequence[Row]) -> list[Row]:
    """The rows whose text is in none of the other splits."""
    known = {row.key for other in others for row in other}
    return [row for row in rows if row.key not in known]


def contradictions(splits: Mapping[str, Sequence[Row]]) -> dict[str, list[str]]:
    """Texts that carry different labels somewhere in the data: text -> the different labels, in order of appearance."""
    labels: dict[str, dict[str, None]] = {}
    first_text: dict[str, str] = {}
    for rows in splits.values():
        for row in rows:
            first_text.setdefault(row.key, row.text)
            labels.setdefault(row.key, {})["|".join(row.labels)] = None
    return {first_text[key]: list(found) for key, found in labels.items() if len(found) > 1}


def _text(cell: object, column: str, table: Table) -> str:
    if isinstance(cell, list | dict):
        raise DataError(f"{table.source}: column {column!r} holds lists, not text", "Set prepare.text_column.")
    if _is_missing(cell):
        return ""
    text = " ".join(str(cell).split())
    return text if any(c.isprintable() and c != " " for c in text) else ""


def _labels(cell: object, names: Sequence[str] | None, separator: str | None, table: Table) -> tuple[str, ...] | None:
    """The labels of a cell, or None where they are missing. An empty list is a row of no class."""
    if isinstance(cell, list):
        found = [name for part in cell if (name := _label(part, names, table)) is not None]
        return tuple(sorted(set(found))) if found or not cell else None
    if separator is not None and isinstance(cell, str):
        found = [name for part in cell.split(separator) if (name := _label(part, names, table)) is not None]
        return tuple(sorted(set(found))) or None
    name = _label(cell, names, table)
    return None if name is None else (name,)


def _label(cell: object, names: Sequence[str] | None, table: Table) -> str | None:
    if _is_missing(cell) or isinstance(cell, dict):
        return None
    if isinstance(cell, int) and names is not None and cell != -1:
        if not 0 <= cell < len(names):
            raise DataError(f"{table.source}: the label {cell} is none of its {len(names)} classes", "Correct it.")
        return " ".join(names[cell].split())
    name = " ".join(str(cell).split())
    # Columns with gaps are written with floats: 3.0 is class 3.
    name = re.sub(r"(-?\d+)\.0+", r"\1", name) if re.fullmatch(r"-?\d+\.0+", name) else name
    return None if name in ("", "-1") else name


def _is_missing(cell: object) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))

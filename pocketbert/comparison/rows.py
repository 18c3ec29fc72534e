"""The rows of a comparison: texts of a file, and hard rows made from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.columns import find_text_column
from pocketbert.data.load import load_file
from pocketbert.data.table import Table
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import DataError, ParamsError
from pocketbert.numerics.probes import make_probes

Row = dict[str, NDArray[np.int32]]
# Where neither model says how many tokens it takes.
DEFAULT_LENGTH = 128


class Limited(Protocol):
    """What is asked here of a side: tokens of a static input, tokens at most; None where unknown."""

    length: int | None
    max_length: int | None


@dataclass(frozen=True)
class Texts:
    """Texts and the number of each one's row in the file (1 is the first row of data)."""

    texts: list[str]
    numbers: list[int]
    column: str


def read_texts(path: Path, column: str | None, rows: int) -> Texts:
    """At most `rows` texts, evenly spaced over the file (a file sorted by label gives all labels); raises DataError."""
    if not path.exists():
        raise DataError(f"{path} does not exist", "Name a file of texts with --data.")
    table = load_file(path)
    name = _column(table, column)
    held = [
        (number, cell) for number, cell in enumerate(table.columns[name], 1) if isinstance(cell, str) and cell.strip()
    ]
    if not held:
        raise DataError(f"{path}: its column {name!r} holds no text", "Name another one with --text-column.")
    chosen = np.unique(np.linspace(0, len(held) - 1, num=min(rows, len(held))).round().astype(int))
    return Texts([held[i][1] for i in chosen], [held[i][0] for i in chosen], name)


def _column(table: Table, column: str | None) -> str:
    if column is None:
        try:
            return find_text_column(table)
        except DataError as error:
            raise DataError(error.cause, "Name the right one with --text-column.") from error
    if column not in table.columns:
        raise DataError(f"{table.source} has no column {column!r}", f"Its columns: {', '.join(table.columns)}.")
    return column


def choose_tokenizer(given: Path | None, a: Path, b: Path, said: list[str]) -> TextEncoder:
    """The tokenizer that was named, else A's, else B's; raises ParamsError where there is none."""
    folders = [path if path.is_dir() else path.parent for path in (a, b)]
    found = [folder for folder in ([given] if given else folders) if (folder / "tokenizer.json").is_file()]
    if not found:
        where = given or " and ".join(dict.fromkeys(map(str, folders)))
        raise ParamsError(f"there is no tokenizer.json in {where}", "Name a folder that holds one with --tokenizer.")
    said.append(f"tokenizer: {found[0]}")
    if not given and len(found) == 2 and _content(found[0]) != _content(found[1]):
        said.append(f"WARNING: the tokenizer in {found[1]} is another one; both models get the ids of {found[0]}")
    return TextEncoder(found[0])


def _content(folder: Path) -> bytes:
    return (folder / "tokenizer.json").read_bytes()


def common_length(a: Limited, b: Limited, said: list[str]) -> tuple[int, bool]:
    """Tokens that rows are cut to, and whether all are padded to it (where one of the models is static)."""
    limits = [n for side in (a, b) for n in (side.length, side.max_length) if n is not None]
    if not limits:
        said.append(f"neither model says how long a row may be: rows are cut to {DEFAULT_LENGTH} tokens")
    return min(limits, default=DEFAULT_LENGTH), a.length is not None or b.length is not None


def encode(encoder: TextEncoder, texts: Sequence[str], length: int, padded: bool) -> list[Row]:
    """One batch of a single row a text."""
    return [encoder.encode([text], length, pad_to=length if padded else None) for text in texts]


def hard_rows(
    encoder: TextEncoder, texts: Sequence[str], length: int, padded: bool, roles: set[str]
) -> list[tuple[str, Row]]:
    """Rows whose masks and token types are asymmetric, so that swapped inputs show: (kind, batch of one row).

    `roles` are the inputs that both models have: without a mask there is nothing to be hard about.
    """
    if "attention_mask" not in roles:
        return []
    probes = make_probes(encoder, texts, 8, length, seed=0, token_types="token_type_ids" in roles)
    widths = probes.lengths()
    return [
        (kind, {name: values[i : i + 1, : length if padded else widths[i]] for name, values in probes.inputs.items()})
        for i, kind in enumerate(probes.kinds)
        if kind not in ("real", "longest")
    ]

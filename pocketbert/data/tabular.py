"""Readers of single files: CSV and TSV, JSON lines, Parquet. Every fault names the line."""

import codecs
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pocketbert.data.table import Table
from pocketbert.errors import DataError

# A text may be longer than the csv module's default limit of 128 KiB a field.
_FIELD_LIMIT = 2**30


def read_delimited(path: Path) -> Table:
    """Read CSV (comma, semicolon or tab, whichever the header uses) or TSV with a header line; raises DataError.

    A TSV may leave its quotation marks unescaped, as many do: it is then read literally.
    """
    text = read_text(path)
    header = text.lstrip().split("\n", 1)[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    try:
        rows = list(_records(path, text, delimiter, quoted=True))
    except DataError:
        if delimiter != "\t":
            raise
        rows = list(_records(path, text, delimiter, quoted=False))
    if not rows:
        raise DataError(f"{path} is empty", "Give a file with a header line and labelled rows.")
    names = [name.strip() for name in rows[0]]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path} has two columns named {twice!r}", "Rename one in the header line.")
    return Table({name: [row[i] for row in rows[1:]] for i, name in enumerate(names)}, str(path))


def read_json(path: Path) -> Table:
    """Read JSON objects, one a line or in one list; raises DataError."""
    text = read_text(path)
    rows = list(_json_objects(path, text))
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Table({name: [row.get(name) for row in rows] for name in names}, str(path))


def read_parquet(path: Path) -> Table:
    """Read Parquet; class names that the `datasets` library stored with it are kept; raises DataError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is no readable Parquet file: {reason}", "Write it again.") from error
    metadata = (table.schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(metadata).get("info", {}).get("features", {})
    class_names = {name: names for name, feature in features.items() if (names := _class_names(feature))}
    return Table({name: table[name].to_pylist() for name in table.column_names}, str(path), class_names)


def read_text(path: Path) -> str:
    """Decode a text file: UTF-8 with or without a byte order mark, or UTF-16 with one; raises DataError."""
    data = path.read_bytes()
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        if b"\0" in data:
            raise _binary(path) from error
        raise DataError(
            f"{path} is not UTF-8: byte 0x{data[error.start]:02x} on line {line}", "Save it as UTF-8."
        ) from error
    if "\0" in text:
        raise _binary(path)
    return text


def _binary(path: Path) -> DataError:
    return DataError(f"{path} is binary, not text", "Save it as UTF-8 text, or give it the ending of its format.")


def _records(path: Path, text: str, delimiter: str, quoted: bool) -> Iterator[list[str]]:
    """Rows of a delimited file without empty lines, each as wide as the first."""
    csv.field_size_limit(_FIELD_LIMIT)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    width, line = 0, 1
    try:
        for row in reader:
            if row:
                width = width or len(row)
                if len(row) != width:
                    raise DataError(
                        f"{path}, line {line}: {len(row)} fields where the header has {width}",
                        'Put fields that hold the delimiter between double quotes ("a, b").',
                    )
                yield row
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {line}: {error}",
            'Close each quoted field, and double the quotes inside it ("a ""b"" c").',
        ) from error


def _json_objects(path: Path, text: str) -> Iterator[dict[str, object]]:
    def parsed(part: str, line: int) -> object:
        try:
            return json.loads(part)
        except ValueError as error:
            where = f"line {line + getattr(error, 'lineno', 1) - 1}"
            raise DataError(f"{path}, {where}: not valid JSON: {error}", "Give one JSON object a line.") from error

    if text.lstrip().startswith("["):
        whole = parsed(text, 1)
        rows = list(enumerate(whole, 1)) if isinstance(whole, list) else []
    else:
        # Not splitlines(): a JSON string may hold U+2028 and other marks that Python takes for line ends.
        rows = [(i, parsed(line, i)) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    for number, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: no JSON object", 'Give lines like {"text": ..., "label": ...}.')
        yield row


def _class_names(feature: object) -> list[str] | None:
    """Names of a ClassLabel, or of a list of them, in the stored description of a feature."""
    if isinstance(feature, list):
        feature = feature[0] if feature else None
    if not isinstance(feature, dict):
        return None
    return feature["names"] if feature.get("_type") == "ClassLabel" else _class_names(feature.get("feature"))

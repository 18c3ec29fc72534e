"""Read labelled text from a file, a folder of splits or a Hugging Face data set, as plain columns."""

import re
from pathlib import Path

from pocketbert.data.dataset import SPLITS
from pocketbert.data.hub import load_hub
from pocketbert.data.table import WHOLE, Table, split_named
from pocketbert.data.tabular import read_delimited, read_json, read_parquet
from pocketbert.errors import DataError
from pocketbert.params import PrepareParams

FORMATS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json")

# A hub data set's file may be one of several shards: train-00000-of-00002.parquet.
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def load_tables(params: PrepareParams) -> dict[str, Table]:
    """Read the source of `params`: {"all": table}, or the given ones of train, valid and test.

    Raises DataError where it is missing, empty, binary, malformed or of an unknown kind.
    """
    if params.hub is not None:
        return load_hub(params.hub)
    path = params.path
    if not path.exists():
        raise DataError(f"{path} does not exist", "Set prepare.path to a file or a folder with train and test files.")
    return load_folder(path) if path.is_dir() else {WHOLE: load_file(path)}


def load_folder(folder: Path) -> dict[str, Table]:
    """Read the train, valid and test files of a folder (other files are ignored); raises DataError."""
    found: dict[str, list[Path]] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in FORMATS):
        split = split_named(_SHARD.sub("", path.stem))
        if split:
            found.setdefault(split, []).append(path)
    if "train" not in found:
        raise DataError(
            f"{folder} has no train file (it holds {_listing(folder)})",
            f"Name its files train, valid and test, ending in {', '.join(FORMATS)}; valid and test may be left out.",
        )
    for split, paths in found.items():
        if len({_SHARD.sub("", p.stem) + p.suffix for p in paths}) > 1:
            names = ", ".join(p.name for p in paths)
            raise DataError(f"{folder} has several files for the split {split}: {names}", "Keep one of them.")
    return {split: _joined([load_file(path) for path in found[split]]) for split in SPLITS if split in found}


def load_file(path: Path) -> Table:
    """Read one file by its ending; raises DataError."""
    readers = {".csv": read_delimited, ".tsv": read_delimited, ".parquet": read_parquet}
    readers |= dict.fromkeys((".jsonl", ".ndjson", ".json"), read_json)
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise DataError(f"{path} has the unknown ending {suffix!r}", f"Give a file ending in {', '.join(FORMATS)}.")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty", "Give a file with a header line and labelled rows.")
        table = readers[suffix](path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}", "Check the file and its rights."
        ) from error
    if not len(table):
        raise DataError(f"{path} holds no rows", "Give a file with a header line and labelled rows.")
    return table


def _joined(tables: list[Table]) -> Table:
    """Shards of one split as one table."""
    first = tables[0]
    for table in tables[1:]:
        if list(table.columns) != list(first.columns):
            raise DataError(f"{table.source} has other columns than {first.source}", "Give both the same columns.")
    columns = {name: [cell for table in tables for cell in table.columns[name]] for name in first.columns}
    return Table(columns, ", ".join(table.source for table in tables), first.class_names)


def _listing(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"

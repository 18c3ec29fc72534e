"""What was published last, so that publishing it again needs no mlflow, whose import alone takes longer.

Publishing is a function of the files that it reads and of the store. Where neither has changed since it ended, it would
change nothing, and what it wrote then is written again. That a store has not changed can be told of SQLite alone, whose
files count their write transactions (sqlite.org/fileformat.html, section 1.3): a server is always asked.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketbert.params import Params
from pocketbert.tracking.location import is_embedded, project_root, spool_folder, sqlite_file, store_key
from pocketbert.tracking.spool import left_behind
from pocketbert.tracking.state import locked_stages, metrics_files, provenance_files, tree_md5

if TYPE_CHECKING:
    from pocketbert.stage import Metrics

_LOCK = Path("dvc.lock")
_DEFINITIONS = (Path("params.yaml"), Path("dvc.yaml"))
_CODE = Path(__file__).parents[1]
_COUNTER, _WRITE_VERSION, _ROLLBACK_JOURNAL = slice(24, 28), 18, 1


def inputs_md5(params: Params, read: Iterable[Path]) -> str | None:
    """MD5 over all that decides what is published: parameters, code, dvc.lock and the files and folders that are read.

    None without a dvc.lock, which names the state.
    """
    if not _LOCK.is_file():
        return None
    known = [params.model_dump(mode="json", by_alias=True), locked_stages(), os.environ.get("DVC_EXP_NAME")]
    digest = hashlib.md5(json.dumps(known, sort_keys=True, default=str).encode(), usedforsecurity=False)
    records = [*metrics_files(params).values(), *provenance_files(params).values()]
    for path in [_CODE, *_DEFINITIONS, *records, *read]:
        digest.update(f"{path}:{tree_md5(path) if path.exists() else None};".encode())
    return digest.hexdigest()


def published_before(uri: str, inputs: str | None, published: Path) -> "Metrics | None":
    """Write again what was published last and return its metrics; None where anything has changed since."""
    try:
        before: dict[str, Any] = json.loads(_memory(uri).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    # What stages could not send is sent by publishing.
    same = inputs is not None and before["inputs"] == inputs and not left_behind(spool_folder())
    if not same or before["store"] != _writes(uri):
        return None
    published.mkdir(parents=True, exist_ok=True)
    for name, text in before["files"].items():
        (published / name).write_text(text, encoding="utf-8")
    metrics: Metrics = before["metrics"]
    return metrics


def remember(uri: str, inputs: str | None, published: Path, metrics: "Metrics") -> None:
    """Keep what was published just now; nothing where the store is a server."""
    if inputs is None or (store := _writes(uri)) is None:
        return
    files = {path.name: path.read_text(encoding="utf-8") for path in published.iterdir()}
    document = {"inputs": inputs, "store": store, "metrics": metrics, "files": files}
    temporary = _memory(uri).with_suffix(".part")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(json.dumps(document), encoding="utf-8")
    temporary.replace(_memory(uri))


def _memory(uri: str) -> Path:
    return project_root() / ".pocketbert" / "published" / f"{store_key(uri)}.json"


def _writes(uri: str) -> list[int] | None:
    """Which file an embedded store is, and how often it was written; None where that cannot be told."""
    if not is_embedded(uri):
        return None
    file = sqlite_file(uri)
    try:
        with file.open("rb") as stream:
            header = stream.read(100)
            status = os.fstat(stream.fileno())
    except FileNotFoundError:
        return None
    # With a write-ahead log the header says nothing; a journal is a transaction that is not over.
    if len(header) < 100 or header[_WRITE_VERSION] != _ROLLBACK_JOURNAL or Path(f"{file}-journal").exists():
        return None
    return [status.st_ino, status.st_size, int.from_bytes(header[_COUNTER], "big")]

"""What was published last, so that publishing it again needs no mlflow, whose import alone takes longer.

Publishing is a function of the files that it reads and of the store. Where neither has changed since it ended
(store_version.py), it would change nothing, and what it wrote then is written again.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketbert.params import Params, PublishParams
from pocketbert.tracking.location import project_root, spool_folder, store_key
from pocketbert.tracking.spool import left_behind
from pocketbert.tracking.state import locked_stages, metrics_files, provenance_files, tree_md5
from pocketbert.tracking.store_version import store_version

if TYPE_CHECKING:
    from pocketbert.stage import Metrics

_LOCK = Path("dvc.lock")
_DEFINITIONS = (Path("params.yaml"), Path("dvc.yaml"))
_CODE = Path(__file__).parents[1]


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


def published_before(uri: str, params: PublishParams, inputs: str | None, published: Path) -> "Metrics | None":
    """Write again what was published last and return its metrics; None where anything has changed since."""
    try:
        before: dict[str, Any] = json.loads(_memory(uri).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    # What stages could not send is sent by publishing.
    same = inputs is not None and before["inputs"] == inputs and not left_behind(spool_folder())
    if not same or before["store"] != store_version(uri, params, before["run_id"]):
        return None
    published.mkdir(parents=True, exist_ok=True)
    for name, text in before["files"].items():
        (published / name).write_text(text, encoding="utf-8")
    metrics: Metrics = before["metrics"]
    return metrics


def remember(
    uri: str, params: PublishParams, inputs: str | None, published: Path, run_id: str, metrics: "Metrics"
) -> None:
    """Keep what was published just now; nothing where it cannot be told later whether the store has changed."""
    if inputs is None or (store := store_version(uri, params, run_id)) is None:
        return
    files = {path.name: path.read_text(encoding="utf-8") for path in published.iterdir()}
    document = {"inputs": inputs, "store": store, "run_id": run_id, "metrics": metrics, "files": files}
    temporary = _memory(uri).with_suffix(".part")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(json.dumps(document), encoding="utf-8")
    temporary.replace(_memory(uri))


def _memory(uri: str) -> Path:
    return project_root() / ".pocketbert" / "published" / f"{store_key(uri)}.json"

"""What tells that an MLflow store has not changed: cheap to ask for, and without importing mlflow."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pocketbert.params import PublishParams
from pocketbert.tracking.location import is_embedded, sqlite_file
from pocketbert.tracking.store import STATE_TAG

_COUNTER, _WRITE_VERSION, _ROLLBACK_JOURNAL = slice(24, 28), 18, 1
_TIMEOUT_S = 5.0


def store_version(uri: str, params: PublishParams, run_id: str) -> list[int] | str | None:
    """A value that differs where publishing `run_id` again could change something; None where it cannot be told.

    Of SQLite it is which file that is and how often it was written: no write is missed. Of a server it is what it says
    of that run, of the run published last and of the registered models: an older run, with which latencies are compared
    where the last one did not measure the device, may change unseen.
    """
    if is_embedded(uri):
        return _writes(sqlite_file(uri))
    return _answers(uri, params, run_id) if uri.startswith(("http://", "https://")) else None


def _writes(file: Path) -> list[int] | None:
    """SQLite's files count their write transactions (sqlite.org/fileformat.html, section 1.3)."""
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


def _answers(uri: str, params: PublishParams, run_id: str) -> str | None:
    """MD5 over a server's answers (mlflow.org/docs/latest/rest-api.html)."""
    import requests

    digest = hashlib.md5(usedforsecurity=False)
    with requests.Session() as session:
        if "MLFLOW_TRACKING_USERNAME" in os.environ:
            session.auth = (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))

        def ask(method: str, path: str, **what: Any) -> Any:
            answer = session.request(method, f"{uri.rstrip('/')}/api/2.0/mlflow/{path}", timeout=_TIMEOUT_S, **what)
            answer.raise_for_status()
            document = answer.json()
            digest.update(json.dumps(_ordered(document), sort_keys=True).encode())
            return document

        try:
            found = ask("GET", "experiments/get-by-name", params={"experiment_name": params.experiment})
            ask("GET", "runs/get", params={"run_id": run_id})
            newest = {
                "experiment_ids": [found["experiment"]["experiment_id"]],
                "filter": f"tags.`{STATE_TAG}` != ''",
                "order_by": ["attributes.start_time DESC"],
                "max_results": 1,
            }
            ask("POST", "runs/search", json=newest)
            names = f"name LIKE '{params.registered_model}-%'"
            ask("GET", "registered-models/search", params={"filter": names, "max_results": 1000})
        except (requests.RequestException, ValueError, KeyError):
            # Whatever is wrong, publishing by mlflow finds it, too, and says so.
            return None
    return digest.hexdigest()


def _ordered(document: Any) -> Any:
    """Lists of params, metrics and tags come in any order."""
    if isinstance(document, dict):
        return {key: _ordered(value) for key, value in document.items()}
    if isinstance(document, list):
        return sorted((_ordered(value) for value in document), key=lambda value: json.dumps(value, sort_keys=True))
    return document

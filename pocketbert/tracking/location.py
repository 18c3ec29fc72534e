"""Where the MLflow store and the spool of this project are."""

import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from pocketbert.params import PublishParams

_STATE_FOLDER = ".pocketbert"
_DEFAULT_URI = "sqlite:///mlflow.db"
_SQLITE = "sqlite:///"
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def project_root() -> Path:
    """The working folder, or the project itself where DVC runs an experiment in a throw-away copy.

    `dvc exp run --temp` and `--queue` work below `.dvc/tmp/exps` and delete that afterwards.
    """
    here = Path.cwd()
    for parent in here.parents:
        if parent.parts[-3:] == (".dvc", "tmp", "exps"):
            return parent.parents[2]
    return here


def spool_folder() -> Path:
    """Where unsent events are kept."""
    return project_root() / _STATE_FOLDER / "spool"


def artifact_folder() -> Path:
    """Where the embedded store keeps artifacts."""
    return project_root() / "mlartifacts"


def tracking_uri(params: PublishParams) -> str:
    """params.yaml's URI, else MLFLOW_TRACKING_URI, else the embedded store; may hold a password."""
    uri = params.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or _DEFAULT_URI
    if uri.startswith(_SQLITE) and not uri.startswith(f"{_SQLITE}/"):
        return f"{_SQLITE}{project_root() / uri.removeprefix(_SQLITE)}"
    return uri


def store_key(uri: str) -> str:
    """Identity of a store for the spool's positions; without what may be secret in the URI."""
    parts = urlsplit(uri)
    return hashlib.sha256(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".encode()).hexdigest()[:16]


def is_embedded(uri: str) -> bool:
    """Whether the store is a file of this machine: it cannot be unreachable, only slow."""
    return uri.startswith(_SQLITE)


def sqlite_file(uri: str) -> Path:
    """The data base file of an embedded store."""
    return Path(urlsplit(uri).path.removeprefix("/") if os.name == "nt" else "/" + urlsplit(uri).path.lstrip("/"))


def require_listener(uri: str, timeout_s: float) -> None:
    """Find out at once where a server is down, at which mlflow would try again for a minute; raises OSError."""
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    # Behind a proxy, and of several hosts, only the driver knows.
    if scheme in _PORTS and scheme not in getproxies() and parts.hostname and "," not in parts.netloc:
        socket.create_connection((parts.hostname, parts.port or _PORTS[scheme]), timeout_s).close()


@contextmanager
def exclusively(name: str) -> Iterator[None]:
    """Only one process of this project at a time."""
    path = project_root() / _STATE_FOLDER / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

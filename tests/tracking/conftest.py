import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pocketbert.params import PublishParams
from pocketbert.tracking.location import spool_folder
from pocketbert.tracking.spool import left_behind, wait_until_sent
from pocketbert.tracking.store import Store

from .built import build
from .server import Server


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded store without runs: MLflow's migrations take seconds."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Store(PublishParams(experiment="unused"))
    return folder / "mlflow.db"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder as the working folder, without a store and without MLflow's variables."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def project(workspace: Path, empty_database: Path) -> Path:
    """A workspace with an embedded store."""
    shutil.copy(empty_database, workspace / "mlflow.db")
    return workspace


@pytest.fixture(scope="session")
def built_once(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline whose stages ran, in miniature."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        build()
    return folder


@pytest.fixture
def built(project: Path, built_once: Path) -> Path:
    """A copy of it as the working folder. (Artifacts of all copies lie in the folder of the first.)"""
    shutil.copytree(built_once, project, dirs_exist_ok=True)
    return project


@pytest.fixture
def store(project: Path) -> Callable[[], Store]:
    """Connects to the workspace's store (later than the stage that is tested)."""
    return lambda: Store(PublishParams())


@pytest.fixture
def server(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server with an empty store."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = Server(project, port)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB (root only)."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=True)
    yield folder
    # The data base may still be open in this process.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def history(store: Store, run_id: str, key: str) -> list[tuple[int, float]]:
    """(step, value) of a metric, in order."""
    points: list[Any] = store.client.get_metric_history(run_id, key)
    return sorted((point.step, point.value) for point in points)


def unsent() -> list[Path]:
    """Spools that are left when no process sends any more."""
    wait_until_sent(spool_folder(), [path.stem for path in left_behind(spool_folder())], timeout_s=90)
    return left_behind(spool_folder())


def the_run(store: Store, stage: str) -> Any:
    """The one run of a stage, when all is sent that can be."""
    unsent()
    (run,) = store.find_runs("pocketbert.stage", stage)
    return run


def first_seen(store: Store, stage: str) -> Any:
    """The run of a stage that is at work, as soon as it has a metric."""
    deadline = time.monotonic() + 90
    while True:
        runs = store.find_runs("pocketbert.stage", stage)
        if runs and runs[0].data.metrics:
            return runs[0]
        assert time.monotonic() < deadline, "nothing arrived while the stage ran"
        time.sleep(0.2)

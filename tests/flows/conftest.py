"""A miniature DVC project with the real flows, and one `make up` session on it for all tests."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

PREPARE = """
from pathlib import Path
Path("prepared.txt").write_text(Path("data/raw/commodities.csv").read_text().upper())
"""
# What it does is chosen by a parameter, so that overrides are seen to arrive.
FINISH = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
from pocketbert.params import load_params
from pocketbert.process import die_with_parent

die_with_parent()
behaviour = load_params().report.worst_classes
print(f"worst_classes is {behaviour}")
if behaviour == 66:
    raise ValueError("the glue of row 7 is wet")
if behaviour == 77:
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour == 88:
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    Path("pids.json.part").write_text(json.dumps([os.getpid(), os.getppid(), grandchild.pid]))
    Path("pids.json.part").rename("pids.json")
    time.sleep(300)
Path("finished.txt").write_text(f"{behaviour}")
"""
DVC_YAML = """
stages:
  finish:
    cmd: python finish.py
    deps: [finish.py, prepared.txt]
    params: [report.worst_classes]
    outs: [finished.txt]
  prepare:
    cmd: python prepare.py
    deps: [prepare.py, data/raw/commodities.csv]
    outs: [prepared.txt]
"""


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as working folder, without servers."""
    root = make_miniature(tmp_path / "project")
    monkeypatch.chdir(root)
    return root


def make_miniature(root: Path) -> Path:
    (root / "data/raw").mkdir(parents=True)
    (root / "data/raw/commodities.csv").write_text("text,label\nred shoes,shoes\n", encoding="utf-8")
    for name, text in {"prepare.py": PREPARE, "finish.py": FINISH, "dvc.yaml": DVC_YAML}.items():
        (root / name).write_text(text, encoding="utf-8")
    for name in ("params.yaml", "prefect.yaml", "devices.yaml"):
        shutil.copy2(ROOT / name, root / name)
    shutil.copytree(ROOT / "flows", root / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["dvc", "init", "--quiet", "--no-scm"], cwd=root, env=environment(), check=True)
    return root


def environment(**variables: str) -> dict[str, str]:
    foreign = ("MLFLOW_", "DVC_", "POCKETBERT_", "PREFECT_", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **variables}


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            pytest.fail(f"{what}: not within {seconds} s")
        time.sleep(0.1)


@dataclass
class Session:
    """A running `make up`."""

    root: Path
    process: "subprocess.Popen[str]"
    log: Path
    prefect_url: str
    mlflow_url: str

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with make_up(make_miniature(tmp_path_factory.mktemp("flows") / "project")) as session:
        yield session


@contextmanager
def make_up(root: Path) -> Iterator[Session]:
    # Where a user's own Prefect profile would be.
    home = root.parent / "home"
    home.mkdir()
    ports = {"PREFECT_PORT": str(free_port()), "MLFLOW_PORT": str(free_port())}
    log = root.parent / "up.log"
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.up"], cwd=root, env=environment(HOME=str(home), **ports),
            stdout=stream, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    try:
        wait_for(lambda: process.poll() is not None or "Ctrl-C ends all" in log.read_text(), 300, "make up")
        assert process.poll() is None, log.read_text(encoding="utf-8")
        urls = [f"http://127.0.0.1:{port}" for port in ports.values()]
        yield Session(root, process, log, *urls)
        assert not (home / ".prefect").exists()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=90)

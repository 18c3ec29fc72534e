"""A pipeline smaller than tiny.csv's whole line, to be killed at many moments, and `make up` on it.

Real are the flows, DVC, the stage runner, the MLflow record, `prepare` and what `publish` does; training is a loop that
logs 30 steps and writes a file a step.
"""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil

ROOT = Path(__file__).parent.parent
STEPS = 30
SENDER = "pocketbert.tracking.forward"
_STAGES = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from pocketbert.params import DistillParams, Params
from pocketbert.stage import current_stage, run_stage
from pocketbert.tracking import publish_pipeline

@dataclass(frozen=True)
class Prepared:
    prepared: Path = Path("data/prepared")

@dataclass(frozen=True)
class Student:
    student: Path = Path("models/student")

@dataclass(frozen=True)
class Report:
    report: Path = Path("report")

@dataclass(frozen=True)
class Published:
    published: Path = Path("results/publish")

def distill(params: DistillParams, inputs: Prepared, outputs: Student):
    run = current_stage().run
    with open("started.log", "a") as log:
        log.write(run.execution_id + "\\n")
    outputs.student.mkdir()
    for step in range(STEPS):
        run.log_metrics({"loss": 1 / (step + 1)}, step)
        (outputs.student / f"{step:02}.txt").write_text(str(params.seed))
        time.sleep(0.05)
    return {"seed": params.seed}

def publish(params: Params, inputs: Report, outputs: Published):
    return publish_pipeline(params, inputs.report, [], outputs.published)

run_stage({"distill": distill, "publish": publish}[sys.argv.pop(1)])
"""
_DVC = """
stages:
  prepare:
    cmd: python -m stages.prepare
    deps: [data/raw/tiny.csv]
    params: [prepare]
    outs: [data/prepared, provenance/prepare.json]
    metrics: [metrics/prepare.json]
  distill:
    cmd: python killed.py distill
    deps: [killed.py, data/prepared]
    params: [distill]
    outs: [models/student, provenance/distill.json]
    metrics: [metrics/distill.json]
  publish:
    cmd: python killed.py publish
    deps: [killed.py, report, models/student, metrics/prepare.json, metrics/distill.json]
    params: [params.yaml: ]
    outs: [results/publish, provenance/publish.json]
    metrics: [metrics/publish.json]
"""


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Seconds until a condition held; raises TimeoutError."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.3)
    return time.monotonic() - started


class FaultProject:
    """The project in a folder of its own, and the servers on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ports = {name: str(_free_port()) for name in ("PREFECT_PORT", "MLFLOW_PORT")}
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{self.ports['PREFECT_PORT']}/api", timeout=60)
        self.up: subprocess.Popen[bytes]
        foreign = ("MLFLOW_", "DVC_", "POCKETBERT_", "PREFECT_", "PYTEST_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**kept, **self.ports, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self._write()

    def _write(self) -> None:
        (self.root / "data/raw").mkdir(parents=True)
        (self.root / "report").mkdir()
        (self.root / "report/results.csv").write_text("artifact,device,accuracy\ntiny,local,0.5\n", encoding="utf-8")
        for name in (".gitignore", ".dvcignore", "params.yaml", "devices.yaml", "prefect.yaml", "data/raw/tiny.csv"):
            shutil.copy2(ROOT / name, self.root / name)
        shutil.copytree(ROOT / "flows", self.root / "flows", ignore=shutil.ignore_patterns("__pycache__"))
        (self.root / "dvc.yaml").write_text(_DVC, encoding="utf-8")
        (self.root / "killed.py").write_text(_STAGES.replace("STEPS", str(STEPS)), encoding="utf-8")
        # DVC looks past what git ignores: MLflow's artifacts hold a dvc.yaml of each state.
        self.run("git", "init", "--quiet")
        self.run("dvc", "init", "--quiet")
        self.run("dvc", "config", "core.analytics", "false")

    def run(self, *command: str) -> str:
        """A command in the project; raises CalledProcessError."""
        return subprocess.run(
            command, cwd=self.root, env=self.environment, check=True, capture_output=True, text=True
        ).stdout

    def dvc_status(self) -> str:
        """What `dvc status` says, when no scheduled look at the data holds DVC's lock."""
        for _ in range(10):
            done = subprocess.run(
                ["dvc", "status"], cwd=self.root, env=self.environment, capture_output=True, text=True
            )
            if "Unable to acquire lock" not in done.stderr:
                break
            time.sleep(1)
        return done.stdout + done.stderr

    def start(self) -> float:
        """`make up`; returns the seconds until it was ready."""
        log = (self.root / "up.log").open("ab")
        before = log.tell()
        command = [sys.executable, "-m", "flows.up"]
        self.up = subprocess.Popen(
            command, cwd=self.root, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )

        def ready() -> bool:
            if self.up.poll() is not None:
                raise RuntimeError(f"make up ended with {self.up.returncode}: {self.log(before)[-2000:]}")
            return "Ctrl-C ends all" in self.log(before)

        return wait_for(ready, 300, "make up")

    def log(self, offset: int = 0) -> str:
        """What the servers said."""
        return (self.root / "up.log").read_bytes()[offset:].decode(errors="replace")

    def stop(self) -> None:
        """Ctrl-C."""
        if self.up.poll() is None:
            self.up.send_signal(signal.SIGINT)
            self.up.wait(timeout=120)

    def rebuild(self, seed: int) -> str:
        """Have the worker build everything for a seed; returns the flow run's id."""
        deployment = self.post("deployments/name/rebuild/rebuild")
        overrides = [f"prepare.seed={seed}", f"distill.seed={seed}", "prepare.path=data/raw/tiny.csv"]
        # With a key, a request that was asked again makes no second run.
        body = {"parameters": {"overrides": overrides}, "idempotency_key": str(uuid4())}
        return str(self.post(f"deployments/{deployment['id']}/create_flow_run", body)["id"])

    def every_minute(self) -> None:
        """Have watch_data start each minute; called before `start`."""
        path = self.root / "prefect.yaml"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("interval: 600", 'cron: "* * * * *"'), encoding="utf-8")

    def scheduled(self) -> list[dict[str, Any]]:
        """Runs of schedules that were started."""
        body = {"flow_runs": {"deployment_id": {"is_null_": False}}, "limit": 200}
        return [run for run in self.post("flow_runs/filter", body) if run["auto_scheduled"] and run["run_count"]]

    def post(self, path: str, body: Any = None) -> Any:
        """The answer of Prefect's server, which may be busy for a moment."""
        for attempt in range(20):
            try:
                answer = self.api.get(path) if body is None else self.api.post(path, json=body)
            except httpx.TimeoutException:
                print(f"{path}: no answer within 60 s", flush=True)
                if attempt == 2:
                    raise
                continue
            if answer.status_code != 503:
                break
            time.sleep(0.2 * attempt)
        return answer.raise_for_status().json()

    def state(self, run: str) -> str:
        """COMPLETED, RUNNING, ..."""
        return str(self.post(f"flow_runs/{run}")["state"]["type"])

    def processes(self) -> list[psutil.Process]:
        """All processes that work in the project's folder, but for senders of MLflow records."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd().startswith(str(self.root)) and SENDER not in process.cmdline():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of MLflow's data base."""
        with closing(sqlite3.connect(f"file:{self.root / 'mlflow.db'}?mode=ro", uri=True, timeout=30)) as database:
            return database.execute(sql).fetchall()


def doubled(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Times of a schedule that have two runs, and runs that were started twice."""
    times = Counter((run["deployment_id"], run["expected_start_time"]) for run in runs)
    found = [f"{when} has {n} runs" for (_, when), n in times.items() if n > 1]
    return found + [f"{run['name']} was started {run['run_count']} times" for run in runs if run["run_count"] > 1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""The servers and workers of a team, started from clones, and requests to them."""

import base64
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.team.conftest import SECRETS, clone, environment, wait_for

WORDS = [word for secret in SECRETS.values() for word in secret.split(":") if word != "team"]
RUN_S = 240


@dataclass
class Process:
    """A program in the foreground of a clone, and its log."""

    root: Path
    log: Path
    process: "subprocess.Popen[bytes]"

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, words: str, seconds: float = 180) -> None:
        wait_for(lambda: self.process.poll() is not None or words in self.text, seconds, f"{words!r} in\n{self.text}")
        assert self.process.poll() is None, self.text

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=90)


@dataclass
class Team:
    """Servers, workers and everything that a command line has shown meanwhile."""

    seed: Path
    prefect: str
    mlflow: str
    running: list[Process] = field(default_factory=list)

    def start(self, name: str, *module: str, variables: Mapping[str, str] | None = None) -> Process:
        root = clone(self.seed, name)
        if variables is None:
            secrets = root / ".pocketbert/secrets.env"
            secrets.parent.mkdir()
            secrets.touch(mode=0o600)
            secrets.write_text("".join(f"{key}={value}\n" for key, value in SECRETS.items()), encoding="utf-8")
        log = root.parent / f"{name}.log"
        chosen = {"POCKETBERT_PROFILE": "team", "OMP_NUM_THREADS": "1", "HOME": str(root.parent), **(variables or {})}
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", *module], cwd=root, env=environment(chosen), stdout=stream, stderr=stream
            )
        self.running.append(Process(root, log, process))
        return self.running[-1]

    def api(self, path: str, body: Any = None) -> Any:
        status, answer = request(f"{self.prefect}/api/{path}", SECRETS["PREFECT_API_AUTH_STRING"], body)
        assert status in (200, 201), (path, status, answer)
        return json.loads(answer)

    def build(self, **parameters: Any) -> str:
        deployment = self.api("deployments/name/rebuild/rebuild")
        return str(self.api(f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"])

    def finished(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(self.api(f"flow_runs/{run_id}"))
            return found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

        logs = "\n".join(process.text[-3000:] for process in self.running)
        wait_for(ended, RUN_S, f"the end of the flow run {found} {logs}")
        return found

    def tasks(self, run_id: str) -> dict[str, str]:
        found = self.api("task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        return {t["name"].partition("-")[0]: t["state_name"] for t in found}


def request(url: str, login: str | None, body: Any = None) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/json"}
    if login is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()

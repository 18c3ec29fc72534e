"""Prefect server, MLflow server and a worker, in the foreground until Ctrl-C: `make up`.

Everything is on loopback and embedded: Prefect's state is in .pocketbert/prefect, MLflow serves the store that
`dvc repro` writes, and the user's own Prefect profile is left alone.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from flows.servers import HOST, Server, answers, port_from, say
from pocketbert.errors import PocketBertError

_START_S = 120
_POOL = "default"


class ServerError(PocketBertError):
    """A server did not start, or ended by itself."""


def main() -> int:
    """Run until a signal (exit status 0) or until one of the servers ends (1)."""
    servers: list[Server] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        prefect_port, mlflow_port = port_from("PREFECT_PORT", 4200), port_from("MLFLOW_PORT", 5000)
        os.environ.update(_environment(prefect_port))
        run(servers, f"http://{HOST}:{prefect_port}", f"http://{HOST}:{mlflow_port}")
    except KeyboardInterrupt:
        return 0
    except PocketBertError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    finally:
        # A second Ctrl-C would leave some of them running.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for server in reversed(servers):
            say("up", f"ending {server.name}")
            server.end()


def run(servers: list[Server], prefect_url: str, mlflow_url: str) -> NoReturn:
    """Start the servers, adding each to `servers`, register the deployments, and watch; raises ServerError."""
    started = time.monotonic()
    port = {url: url.rpartition(":")[2] for url in (prefect_url, mlflow_url)}
    servers.append(Server("prefect", ["prefect", "server", "start", "--host", HOST, "--port", port[prefect_url]], {}))
    servers.append(Server("mlflow", _mlflow_command(port[mlflow_url]), {}))
    _wait(servers, f"{prefect_url}/api/health")
    # The worker publishes to the server that runs here.
    worker = ["prefect", "worker", "start", "--pool", _POOL, "--type", "process"]
    _create_pool()
    servers.append(Server("worker", worker, {"MLFLOW_TRACKING_URI": mlflow_url}))
    _register()
    _wait(servers, f"{mlflow_url}/health")
    say("up", f"ready after {time.monotonic() - started:.0f} s; Ctrl-C ends all")
    say("up", f"Prefect  {prefect_url}")
    say("up", f"MLflow   {mlflow_url}")
    while True:
        _require_running(servers)
        time.sleep(0.5)


def _environment(prefect_port: int) -> dict[str, str]:
    home = Path(".pocketbert/prefect").absolute()
    # SQLite does not make the folder of its file.
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        # Has every child die with this process (flows/child.py).
        "POCKETBERT_WORKER": "1",
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": f"http://{HOST}:{prefect_port}/api",
        # Relative, so that the pages work on any port and through a tunnel.
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def _mlflow_command(port: str) -> list[str]:
    # Artifacts as plain files, not through the server: `dvc repro` without it then finds the same paths.
    artifacts = Path("mlartifacts").absolute()
    return [
        "mlflow", "server", "--host", HOST, "--port", port, "--workers", "1", "--no-serve-artifacts",
        "--backend-store-uri", "sqlite:///mlflow.db", "--default-artifact-root", artifacts.as_uri(),
    ]  # fmt: skip


def _create_pool() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    # With its template, which the worker would else write while deployments are registered: SQLite takes one writer.
    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name=_POOL, type=ProcessWorker.type, base_job_template=template)
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(pool)


def _register() -> None:
    command = [sys.executable, "-m", "flows.child", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = " ".join((done.stdout + done.stderr).split())[-500:]
        raise ServerError(f"prefect.yaml cannot be deployed: {reason}", "Correct it and run `make up` again.")
    say("up", "deployments of prefect.yaml are registered")


def _wait(servers: list[Server], url: str) -> None:
    limit = time.monotonic() + _START_S
    while not answers(url):
        _require_running(servers)
        if time.monotonic() > limit:
            raise ServerError(f"{url} does not answer after {_START_S} s", "Its lines above say why.")
        time.sleep(0.2)


def _require_running(servers: list[Server]) -> None:
    for server in servers:
        if (status := server.exit_status) is not None:
            raise ServerError(
                f"{server.name} ended by itself with {status}", "Its lines above say why; the others are ended."
            )


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

"""Prefect server, MLflow server and a worker, in the foreground until Ctrl-C: `make up`.

Everything is on loopback and embedded: Prefect's state is in .pocketbert/prefect, MLflow serves the store that
`dvc repro` writes, and the user's own Prefect profile is left alone.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from flows.child import start_child
from flows.servers import HOST, MODEL_PAGES, Server, answers, port_from, say
from pocketbert.errors import PocketBertError

_START_S = 300
POOL = "default"


class ServerError(PocketBertError):
    """A server did not start, or ended by itself."""


def foreground(start: Callable[[list[Server]], None]) -> int:
    """Have `start` add servers, then watch them until a signal (exit status 0) or until one of them ends (1)."""
    servers: list[Server] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        start(servers)
        while True:
            _require_running(servers)
            time.sleep(0.5)
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


def start_all(servers: list[Server]) -> None:
    """Start the servers and the worker, adding each to `servers`, and register the deployments; raises ServerError."""
    started = time.monotonic()
    prefect_port, mlflow_port = (str(port_from(*port)) for port in (("PREFECT_PORT", 4200), ("MLFLOW_PORT", 5000)))
    prefect_url, mlflow_url = f"http://{HOST}:{prefect_port}", f"http://{HOST}:{mlflow_port}"
    os.environ.update(environment(f"{prefect_url}/api"))
    servers.append(Server("prefect", ["prefect", "server", "start", "--host", HOST, "--port", prefect_port], {}))
    servers.append(Server("mlflow", _mlflow_command(mlflow_port), {}))
    wait_for_page(servers, f"{prefect_url}/api/health")
    # The worker publishes to the server that runs here.
    worker = ["prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    create_pool()
    servers.append(Server("worker", worker, {"MLFLOW_TRACKING_URI": mlflow_url}))
    register()
    wait_for_page(servers, f"{mlflow_url}/health")
    say("up", f"ready after {time.monotonic() - started:.0f} s; Ctrl-C ends all")
    say("up", f"Prefect  {prefect_url}")
    say("up", f"MLflow   {mlflow_url}/#/experiments?{MODEL_PAGES}")
    # Last, because nobody waits for it.
    servers.append(Server("reaper", ["flows.reaper"], {"MLFLOW_TRACKING_URI": mlflow_url}))


def environment(prefect_api: str) -> dict[str, str]:
    """What every process of Prefect and MLflow is started with; Prefect's state is in this folder."""
    home = Path(".pocketbert/prefect").absolute()
    # SQLite does not make the folder of its file.
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        # Has every child die with this process (flows/child.py).
        "POCKETBERT_WORKER": "1",
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": prefect_api,
        # Relative, so that the pages work on any port and through a tunnel.
        "PREFECT_SERVER_UI_API_URL": "/api",
        # In memory they would die with a killed server, and the places that they stand for be taken for ever.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
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


def create_pool() -> None:
    """Create the work pool of prefect.yaml where it does not exist."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    # With its template, which the worker would else write while deployments are registered: SQLite takes one writer.
    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template)
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(pool)


def register() -> None:
    """Register the deployments of prefect.yaml; raises ServerError."""
    process = start_child(["prefect", "--no-prompt", "deploy", "--all"], {})
    assert process.stdout is not None  # noqa: S101 (for the type checker: it is a pipe)
    output = process.stdout.read()
    if process.wait() != 0:
        reason = " ".join(output.split())[-500:]
        raise ServerError(f"prefect.yaml cannot be deployed: {reason}", "Correct it and run `make up` again.")
    say("up", "deployments of prefect.yaml are registered")


def wait_for_page(servers: list[Server], url: str) -> None:
    """Wait until a page can be had; raises ServerError."""
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


def main() -> int:
    """`make up`: the embedded profile, or the servers of the team (flows/team_servers.py)."""
    if os.environ.get("POCKETBERT_PROFILE"):
        from flows.team_servers import start_servers

        return foreground(start_servers)
    return foreground(start_all)


if __name__ == "__main__":
    sys.exit(main())

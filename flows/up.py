"""Prefect server, MLflow server and a worker, in the foreground until Ctrl-C: `make up`.

Everything is on loopback and embedded: Prefect's state is in .pocketbert/prefect, MLflow serves the store that
`dvc repro` writes, and the user's own Prefect profile is left alone.
"""

import os
import sys
import time
from pathlib import Path

from flows.prefect_api import POOL, create_pool, environment, register
from flows.servers import HOST, MODEL_PAGES, Server, foreground, port_from, say, wait_for_page


def start_all(servers: list[Server]) -> None:
    """Start the servers and the worker, adding each to `servers`, and register the deployments; raises ServerError."""
    started = time.monotonic()
    prefect_port, mlflow_port = (str(port_from(*port)) for port in (("PREFECT_PORT", 4200), ("MLFLOW_PORT", 5000)))
    prefect_url, mlflow_url = f"http://{HOST}:{prefect_port}", f"http://{HOST}:{mlflow_port}"
    os.environ.update(environment(f"{prefect_url}/api"))
    servers.append(Server("prefect", ["prefect", "server", "start", "--host", HOST, "--port", prefect_port], {}))
    servers.append(Server("mlflow", _mlflow_command(mlflow_port), {}))
    wait_for_page(servers, f"{prefect_url}/api/health")
    create_pool()
    register()
    # Not beside the registration: SQLite takes one writer, and the server has waited for its own locks for a minute.
    worker = ["prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    # It publishes to the server that runs here.
    servers.append(Server("worker", worker, {"MLFLOW_TRACKING_URI": mlflow_url}))
    wait_for_page(servers, f"{mlflow_url}/health")
    say("up", f"ready after {time.monotonic() - started:.0f} s; Ctrl-C ends all")
    say("up", f"Prefect  {prefect_url}")
    say("up", f"MLflow   {mlflow_url}/#/experiments?{MODEL_PAGES}")
    # Last, because nobody waits for it.
    servers.append(Server("reaper", ["flows.reaper"], {"MLFLOW_TRACKING_URI": mlflow_url}))


def _mlflow_command(port: str) -> list[str]:
    # Artifacts as plain files, not through the server: `dvc repro` without it then finds the same paths.
    artifacts = Path("mlartifacts").absolute()
    return [
        "mlflow", "server", "--host", HOST, "--port", port, "--workers", "1", "--no-serve-artifacts",
        "--backend-store-uri", "sqlite:///mlflow.db", "--default-artifact-root", artifacts.as_uri(),
    ]  # fmt: skip


def main() -> int:
    """`make up`: the embedded profile, or the servers of the team (flows/team_servers.py)."""
    if os.environ.get("POCKETBERT_PROFILE"):
        from flows.team_servers import start_servers

        return foreground(start_servers)
    return foreground(start_all)


if __name__ == "__main__":
    sys.exit(main())

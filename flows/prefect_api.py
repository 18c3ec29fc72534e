"""What Prefect is told by `make up`, of one machine and of a team: environment, work pool, deployments."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from flows.child import start_child
from flows.servers import ServerError, say

POOL = "default"


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

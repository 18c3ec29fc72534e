"""The team's two servers on PostgreSQL and an S3-compatible store (`make up`), and its workers (`make worker`).

python -m flows.team_servers worker     a worker in this clone, in the foreground until Ctrl-C
"""

import os
import sys
import time
from pathlib import Path

from flows.prefect_api import POOL, create_pool, environment, register
from flows.servers import MODEL_PAGES, Server, ServerError, answers, foreground, require_free, say, wait_for_page
from flows.team import Team, selected_team, split_address
from flows.workspace import clone_name
from pocketbert.errors import ParamsError

_AUTH_CONFIG = Path(".pocketbert/mlflow_auth.ini")
_CHECK_S = 10
_PAUSE_S = 5


def start_servers(servers: list[Server]) -> None:
    """Start both, adding each to `servers`, and register the deployments; raises ParamsError and ServerError."""
    started = time.monotonic()
    team = _team()
    for name, server in (("prefect", team.prefect), ("mlflow", team.mlflow)):
        host, port = split_address(server.listen)
        require_free(host, int(port), f"change {name}.listen in team.yaml")
    os.environ.update({**environment(f"{team.prefect.url}/api"), **team.server_environment()})
    for database in (team.prefect.database, team.mlflow.database):
        _check_database(database)
    _check_bucket(team)
    servers.append(Server("prefect", *_prefect(team)))
    servers.append(Server("mlflow", *_mlflow(team)))
    wait_for_page(servers, f"{team.prefect.url}/api/health")
    create_pool()
    register()
    wait_for_page(servers, f"{team.mlflow.url}/health")
    say("up", f"ready after {time.monotonic() - started:.0f} s; Ctrl-C ends both")
    say("up", f"Prefect  {team.prefect.url}")
    say("up", f"MLflow   {team.mlflow.url}/#/experiments?{MODEL_PAGES}")


def start_worker(servers: list[Server]) -> None:
    """Start a worker that builds one flow at a time in this clone, and leaves others to other workers."""
    team = _team()
    os.environ.update({**environment(f"{team.prefect.url}/api"), **team.client_environment()})
    # Without an answer at its start, a worker would later not hear of cancelled flows.
    health = f"{team.prefect.url}/api/health"
    if not answers(health):
        say("worker", f"waiting for {health}")
        while not answers(health):
            time.sleep(_PAUSE_S)
    command = ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--limit", "1"]
    servers.append(Server("worker", [*command, "--name", clone_name()], {}))
    servers.append(Server("reaper", ["flows.reaper"], {}))


def _team() -> Team:
    team = selected_team()
    if team is None:
        raise ParamsError("no profile is chosen", "Set POCKETBERT_PROFILE=team.")
    return team


def _prefect(team: Team) -> tuple[list[str], dict[str, str]]:
    host, port = split_address(team.prefect.listen)
    # asyncpg's name for libpq's `sslmode` is another one.
    rest = team.prefect.database.removeprefix("postgresql").replace("?sslmode=", "?ssl=")
    variables = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg{rest}"}
    if team.auth == "basic":
        variables["PREFECT_SERVER_API_AUTH_STRING"] = os.environ["PREFECT_API_AUTH_STRING"]
    return ["prefect", "server", "start", "--host", host, "--port", port], variables


def _mlflow(team: Team) -> tuple[list[str], dict[str, str]]:
    host, port = split_address(team.mlflow.listen)
    command = ["mlflow", "server", "--host", host, "--port", port, "--workers", "1", "--serve-artifacts"]
    variables = {
        "MLFLOW_BACKEND_STORE_URI": team.mlflow.database,
        "MLFLOW_ARTIFACTS_DESTINATION": team.mlflow.artifacts,
        # It refuses requests for other names (a guard against DNS rebinding).
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(dict.fromkeys([_netloc(team.mlflow.url), team.mlflow.listen])),
    }
    if team.s3.endpoint:
        variables["MLFLOW_S3_ENDPOINT_URL"] = team.s3.endpoint
    if team.auth == "basic":
        command += ["--app-name", "basic-auth"]
        variables |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(_write_auth_config(team)),
            "MLFLOW_AUTH_ADMIN_USERNAME": os.environ["MLFLOW_TRACKING_USERNAME"],
            "MLFLOW_AUTH_ADMIN_PASSWORD": os.environ["MLFLOW_TRACKING_PASSWORD"],
        }
    return command, variables


def _netloc(url: str) -> str:
    return url.partition("://")[2]


def _write_auth_config(team: Team) -> Path:
    """Where MLflow keeps users; it holds no secret, for those come by the environment."""
    path = _AUTH_CONFIG.absolute()
    path.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {team.mlflow.database}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        # Else every request pays for a slow hash; a changed password counts at once, for there is one process.
        "auth_cache_ttl_seconds = 60\n",
        encoding="utf-8",
    )
    return path


def _check_database(uri: str) -> None:
    """Find out now, in one line, what the servers would tell in a hundred."""
    import psycopg2

    try:
        psycopg2.connect(uri, connect_timeout=_CHECK_S).close()
    except psycopg2.OperationalError as error:
        reason = " ".join(str(error).split())
        raise ServerError(
            f"{uri} cannot be used: {reason}", "Start PostgreSQL; docs/team.md creates the data bases."
        ) from error


def _check_bucket(team: Team) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(connect_timeout=_CHECK_S, read_timeout=_CHECK_S, retries={"total_max_attempts": 1})
    client = boto3.client("s3", config=config)
    try:
        client.head_bucket(Bucket=_netloc(team.mlflow.artifacts).partition("/")[0])
    except (BotoCoreError, ClientError) as error:
        where = f"{team.mlflow.artifacts} at {team.s3.endpoint or 'Amazon S3'}"
        raise ServerError(f"{where} cannot be used: {error}", "Create the bucket, or correct the keys.") from error


if __name__ == "__main__":
    if sys.argv[1:] != ["worker"]:
        sys.exit("error: the one argument is: worker")
    sys.exit(foreground(start_worker))

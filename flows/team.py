"""What several machines share under POCKETBERT_PROFILE=team: the pydantic model of team.yaml, and the environment
that Prefect, MLflow and DVC read it from.

    python -m flows.team COMMAND ARGUMENTS...     run a command in that environment
"""

import ipaddress
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator

from flows.secret_file import CLIENT_SECRETS, LOGINS, SERVER_SECRETS, read_secrets
from pocketbert.errors import ParamsError, PocketBertError
from pocketbert.params import Section, explain_mistakes, read_yaml
from pocketbert.redaction import hide_secrets

TEAM_PATH = Path("team.yaml")
PROFILE_VARIABLE = "POCKETBERT_PROFILE"
_SSL_MODES = ("disable", "require", "verify-ca", "verify-full")
# Read by Prefect, by MLflow, by boto3 and s3fs, and by the drivers of PostgreSQL.
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "PGSSLROOTCERT")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[^:\s\[\]/@]+):(\d{1,5})")


def _http(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("should be http://HOST:PORT or https://HOST; user and password belong into the secrets")
    return url.rstrip("/")


def _database(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme != "postgresql" or not parts.hostname or not parts.username or not parts.path.strip("/"):
        raise ValueError("should be postgresql://USER@HOST:PORT/DATABASE")
    if parts.password is not None or hide_secrets(uri) != uri:
        raise ValueError("holds a password, which git would keep: set PGPASSWORD instead")
    # The two servers' drivers agree on nothing else.
    if parts.query and parts.query.removeprefix("sslmode=") not in _SSL_MODES:
        raise ValueError(f"may end in ?sslmode= and one of {', '.join(_SSL_MODES)}, in nothing else")
    return uri


def _bucket(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.query:
        raise ValueError("should be s3://BUCKET/FOLDER")
    return uri.rstrip("/")


def _address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if not match or not 0 < int(match[2]) < 65536:
        raise ValueError("should be ADDRESS:PORT, for instance 127.0.0.1:4200")
    return text


# What pydantic shows of a refused value passes through `hide_secrets` (explain_mistakes).
Http: TypeAlias = Annotated[str, AfterValidator(_http)]
Database: TypeAlias = Annotated[str, AfterValidator(_database)]
Bucket: TypeAlias = Annotated[str, AfterValidator(_bucket)]
Address: TypeAlias = Annotated[str, AfterValidator(_address)]


class PrefectServer(Section):
    """The Prefect server: `url` as others reach it, `listen` as it is bound."""

    url: Http = "http://127.0.0.1:4200"
    listen: Address = "127.0.0.1:4200"
    database: Database


class MlflowServer(Section):
    """The MLflow server; clients send artifacts through it, so that it alone needs their bucket."""

    url: Http = "http://127.0.0.1:5000"
    listen: Address = "127.0.0.1:5000"
    database: Database
    artifacts: Bucket


class ObjectStore(Section):
    """The S3-compatible store of MLflow's artifacts and of DVC's remote (whose own place is .dvc/config)."""

    endpoint: Http | None = None
    region: Annotated[str, Field(min_length=1)] = "us-east-1"


class Team(Section):
    """team.yaml."""

    prefect: PrefectServer
    mlflow: MlflowServer
    s3: ObjectStore = ObjectStore()
    auth: Literal["basic", "none"] = "basic"
    secrets: Path = Path(".pocketbert/secrets.env")
    # Certificates of the authorities that all servers are checked against; None: the machine's own.
    ca: Path | None = None

    @model_validator(mode="after")
    def _open_only_with_auth(self) -> "Team":
        for name, server in (("prefect", self.prefect), ("mlflow", self.mlflow)):
            if self.auth == "none" and not is_loopback(split_address(server.listen)[0]):
                raise ValueError(
                    f"auth is none, but {name}.listen is {server.listen}: whoever reaches it could run code here; "
                    "set auth: basic"
                )
        return self

    def client_environment(self) -> dict[str, str]:
        """Variables of a worker, and of any command that talks to the servers and the store."""
        required = LOGINS if self.auth == "basic" else ()
        return {
            **read_secrets(self.secrets, CLIENT_SECRETS, required),
            PROFILE_VARIABLE: "team",
            "PREFECT_API_URL": f"{self.prefect.url}/api",
            "MLFLOW_TRACKING_URI": self.mlflow.url,
            "AWS_DEFAULT_REGION": self.s3.region,
            **({"AWS_ENDPOINT_URL_S3": self.s3.endpoint} if self.s3.endpoint else {}),
            **self._authorities(),
        }

    def _authorities(self) -> dict[str, str]:
        if self.ca is None:
            return {}
        if not self.ca.is_file():
            raise ParamsError(f"{self.ca} (ca of {TEAM_PATH}) is not there", "Copy the certificates, or correct ca.")
        return dict.fromkeys(_CA_VARIABLES, str(self.ca.absolute()))

    def server_environment(self) -> dict[str, str]:
        """Variables of the two servers, secrets of the data base and of MLflow's sessions among them."""
        required = ("MLFLOW_FLASK_SERVER_SECRET_KEY",) if self.auth == "basic" else ()
        return self.client_environment() | read_secrets(self.secrets, SERVER_SECRETS, required)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name that is not `localhost` may be any."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def split_address(address: str) -> tuple[str, str]:
    """(host, port)."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), port


def selected_team(environment: Mapping[str, str] = os.environ) -> Team | None:
    """team.yaml under POCKETBERT_PROFILE=team, None without a profile; raises ParamsError."""
    profile = environment.get(PROFILE_VARIABLE) or None
    if profile is None:
        return None
    if profile != "team":
        raise ParamsError(f"{PROFILE_VARIABLE}={profile} is no profile", "Known: team. Unset it for the embedded one.")
    raw = read_yaml(TEAM_PATH)
    try:
        return Team.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(
            f"{TEAM_PATH} is not valid: {explain_mistakes(error, Team, raw)}",
            f"Correct {TEAM_PATH}; docs/team.md lists every key.",
        ) from error


def main() -> None:
    """Replace this process by the command, in the team's environment."""
    try:
        if len(sys.argv) < 2:
            raise ParamsError("no command is given", "For instance: python -m flows.team dvc pull")
        os.environ.setdefault(PROFILE_VARIABLE, "team")
        team = selected_team()
        if team is None:
            raise ParamsError(f"{PROFILE_VARIABLE} is empty", f"Set {PROFILE_VARIABLE}=team.")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        os.environ.update({**team.client_environment(), "PATH": path})
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606
    except FileNotFoundError:
        sys.exit(f"error: there is no command {sys.argv[1]}")
    except PocketBertError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

"""team.yaml and the secrets: what is refused, and that nothing secret is told."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from flows.secret_file import CLIENT_SECRETS, LOGINS, SERVER_SECRETS, read_secrets
from flows.team import Team, is_loopback, selected_team, split_address
from pocketbert.errors import ParamsError
from pocketbert.params import read_yaml
from tests.conftest import ROOT
from tests.team.conftest import SECRETS

SELECTED = {"POCKETBERT_PROFILE": "team"}


def shipped() -> Any:
    return read_yaml(ROOT / "team.yaml")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (*CLIENT_SECRETS, *SERVER_SECRETS):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def team(**changes: Any) -> Team:
    """team.yaml as shipped, with changes ("prefect.url" is written prefect__url)."""
    document = shipped()
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (document[section] if section else document)[name] = value
    with Path("team.yaml").open("w", encoding="utf-8") as stream:
        YAML(typ="safe").dump(document, stream)
    found = selected_team(SELECTED)
    assert found is not None
    return found


def write_secrets(path: Path, text: str | None = None, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{k}={v}\n" for k, v in SECRETS.items()) if text is None else text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_without_a_profile_there_is_no_team(folder: Path) -> None:
    assert selected_team({}) is None
    assert selected_team({"POCKETBERT_PROFILE": ""}) is None
    with pytest.raises(ParamsError, match=r"POCKETBERT_PROFILE=taem is no profile. Known: team"):
        selected_team({"POCKETBERT_PROFILE": "taem"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"auth": "none", "prefect__listen": "0.0.0.0:4200"}, "auth is none, but prefect.listen is 0.0.0.0:4200"),
        ({"auth": "none", "mlflow__listen": "[::]:5000"}, "auth is none, but mlflow.listen is"),
        ({"auth": "none", "mlflow__listen": "example.org:5000"}, "auth is none, but mlflow.listen is"),
        ({"auth": "off"}, "auth = 'off'"),
        ({"prefect__url": "127.0.0.1:4200"}, "should be http://HOST:PORT"),
        ({"prefect__url": "http://me:hunter22@host:4200"}, "belong into the secrets"),
        ({"mlflow__database": "sqlite:///mlflow.db"}, "should be postgresql://USER@HOST:PORT/DATABASE"),
        ({"mlflow__database": "postgresql://me:hunter22@host/mlflow"}, "set PGPASSWORD instead"),
        ({"mlflow__database": "postgresql://me@host/mlflow?sslmode=yes"}, "may end in ?sslmode="),
        ({"mlflow__database": "postgresql://me@host/mlflow?sslrootcert=ca.pem"}, "may end in ?sslmode="),
        ({"mlflow__artifacts": "./mlruns"}, "should be s3://BUCKET/FOLDER"),
        ({"prefect__listen": "4200"}, "should be ADDRESS:PORT"),
        ({"prefect__listen": "127.0.0.1:420000"}, "should be ADDRESS:PORT"),
        ({"prefect__databse": "x"}, "unknown key 'prefect.databse', did you mean 'database'?"),
        ({"s3__region": ""}, "s3.region"),
    ],
)
def test_a_mistake_in_team_yaml_is_explained(folder: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ParamsError) as caught:
        team(**change)
    assert words in str(caught.value)
    assert "hunter22" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_auth_none_is_for_this_machine(folder: Path) -> None:
    assert "PREFECT_API_AUTH_STRING" not in team(auth="none", mlflow__listen="[::1]:5000").server_environment()


@given(st.ip_addresses())
def test_only_loopback_addresses_are_loopback(address: Any) -> None:
    text = f"[{address}]" if address.version == 6 else str(address)
    assert is_loopback(split_address(f"{text}:1")[0]) == address.is_loopback
    assert is_loopback(text) == address.is_loopback


def test_environments_of_servers_and_clients(folder: Path) -> None:
    write_secrets(folder / ".pocketbert/secrets.env")
    client, server = team().client_environment(), team().server_environment()
    assert SECRETS.items() <= server.items()
    # A worker has no need of the data base.
    assert not set(SERVER_SECRETS) & set(client)
    assert client["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert client["AWS_ENDPOINT_URL_S3"] == "http://127.0.0.1:9000"
    assert "AWS_ENDPOINT_URL_S3" not in team(s3__endpoint=None).client_environment()


def test_authorities_are_named_to_every_library(folder: Path) -> None:
    write_secrets(folder / ".pocketbert/secrets.env")
    # What somebody has set for himself is left alone.
    assert "SSL_CERT_FILE" not in team().client_environment()
    with pytest.raises(ParamsError, match=r"ca.pem \(ca of team.yaml\) is not there"):
        team(ca="ca.pem").client_environment()
    (folder / "ca.pem").touch()
    found = team(ca="ca.pem").client_environment()
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "PGSSLROOTCERT"):
        assert found[name] == str(folder / "ca.pem")


def test_the_environment_comes_before_the_file(folder: Path) -> None:
    path = write_secrets(folder / "secrets.env", "PGPASSWORD=of the file\n")
    assert read_secrets(path, SERVER_SECRETS, (), {}) == {"PGPASSWORD": "of the file"}
    assert read_secrets(path, SERVER_SECRETS, (), {"PGPASSWORD": "of the shell"}) == {"PGPASSWORD": "of the shell"}


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o700])
def test_a_file_that_others_could_read_is_refused(folder: Path, mode: int) -> None:
    path = write_secrets(folder / "secrets.env", mode=mode)
    with pytest.raises(ParamsError, match=f"secrets.env has mode {mode:o}, others could read it. Run: chmod 600"):
        read_secrets(path, LOGINS, LOGINS, {})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused(folder: Path) -> None:
    path = write_secrets(folder / "secrets.env")
    os.chown(path, 65534, -1)
    with pytest.raises(ParamsError, match=r"belongs to another user. Run: chown"):
        read_secrets(path, LOGINS, LOGINS, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no PREFECT_API_AUTH_STRING, MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD in the environment"),
        ("hunter22hunter\n", "line 1 is not NAME=value of a known name"),
        ("# x\nMLFLOW_TRACKING_PASWORD=hunter22hunter\n", "line 2.*Did you mean MLFLOW_TRACKING_PASSWORD"),
        ("hunter22=hunter22\n", "line 1 is not NAME=value"),
        ("PGPASSWORD=\n", "line 1 is not NAME=value"),
    ],
)
def test_a_mistake_in_the_file_is_told_without_its_words(folder: Path, text: str, words: str) -> None:
    path = write_secrets(folder / "secrets.env", text)
    with pytest.raises(ParamsError, match=words) as caught:
        read_secrets(path, LOGINS, LOGINS, {})
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("PREFECT_API_AUTH_STRING", "hunter22"), ("MLFLOW_TRACKING_PASSWORD", "hunter22")]
)
def test_a_secret_that_cannot_work_is_refused(folder: Path, name: str, value: str) -> None:
    path = write_secrets(folder / "secrets.env")
    with pytest.raises(ParamsError, match=name) as caught:
        read_secrets(path, LOGINS, LOGINS, {name: value})
    assert value not in str(caught.value)

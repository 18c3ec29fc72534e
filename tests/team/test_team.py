"""The whole team on one machine: servers on PostgreSQL and S3, two workers in two clones, all over TLS.

The tests share one team and run in this order.
"""

import json
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.team.conftest import BUCKET, SECRETS, Store, commit, environment, free_port, make_seed, run, wait_for
from tests.team.running import WORDS, Team, request
from tests.team.tls import Certificate, tls_proxy

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def team(
    tmp_path_factory: pytest.TempPathFactory, s3: Store, postgres: int, certificate: Certificate
) -> Iterator[Team]:
    home = tmp_path_factory.mktemp("team")
    seed = make_seed(home / "seed")
    prefect, mlflow = free_port(), free_port()
    found = Team(seed, f"http://127.0.0.1:{prefect}", f"http://127.0.0.1:{mlflow}")
    # Workers and servers know the addresses of the proxies alone.
    with tls_proxy(certificate, prefect) as prefect_tls, tls_proxy(certificate, mlflow) as mlflow_tls:
        text = (seed / "team.yaml").read_text(encoding="utf-8")
        for shipped, own in {
            "url: http://127.0.0.1:4200": f"url: https://127.0.0.1:{prefect_tls}",
            "url: http://127.0.0.1:5000": f"url: https://127.0.0.1:{mlflow_tls}",
            "listen: 127.0.0.1:4200": f"listen: 127.0.0.1:{prefect}",
            "listen: 127.0.0.1:5000": f"listen: 127.0.0.1:{mlflow}",
            ":5432/prefect": f":{postgres}/prefect?sslmode=verify-full",
            ":5432/mlflow": f":{postgres}/mlflow?sslmode=verify-full",
            "http://127.0.0.1:9000": s3.endpoint,
            "ca: null": f"ca: {certificate.path}",
        }.items():
            assert text.count(shipped) == 1, shipped
            text = text.replace(shipped, own)
        (seed / "team.yaml").write_text(text, encoding="utf-8")
        commit(seed)
        try:
            yield found
        finally:
            for process in reversed(found.running):
                process.end()


@pytest.fixture(scope="module")
def leaks() -> Iterator[list[str]]:
    """Command lines that held a secret at any time."""
    found: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    text = path.read_bytes().decode(errors="replace")
                except OSError:
                    continue
                found.extend(text for word in WORDS if word in text)

    thread = threading.Thread(target=watch)
    thread.start()
    yield found
    done.set()
    thread.join()


def test_the_servers_start_and_know_the_deployments(team: Team, leaks: list[str]) -> None:
    up = team.start("server", "flows.up")
    # A worker may be there before its server.
    team.start("a", "flows.team_servers", "worker", variables=SECRETS)
    up.wait_for("Ctrl-C ends both")
    assert {"rebuild", "watch_data"} <= {d["name"] for d in team.api("deployments/filter", {})}


@pytest.mark.parametrize("login", [None, "team:wrong-password", "admin:password1234", ":"])
def test_requests_without_the_right_credentials_are_refused(team: Team, login: str | None) -> None:
    search, filters = {"max_results": 5}, {"limit": 5}
    for path, body in (
        ("flow_runs/filter", filters),
        ("work_pools/filter", {}),
        ("admin/settings", None),
        ("logs/", []),
    ):
        assert request(f"{team.prefect}/api/{path}", login, body)[0] == 401, path
    for path, body in (("api/2.0/mlflow/experiments/search", search), ("graphql", {"query": "{x}"}), ("", None),
                       ("api/2.0/mlflow-artifacts/artifacts?path=1", None), ("v1/traces", search)):  # fmt: skip
        assert request(f"{team.mlflow}/{path}", login, body)[0] == 401, path
    right = f"{SECRETS['MLFLOW_TRACKING_USERNAME']}:{SECRETS['MLFLOW_TRACKING_PASSWORD']}"
    assert request(f"{team.mlflow}/api/2.0/mlflow/experiments/search", right, search)[0] == 200
    assert request(f"{team.prefect}/api/flow_runs/filter", SECRETS["PREFECT_API_AUTH_STRING"], filters)[0] == 200


@pytest.mark.parametrize("path", ["events/out", "events/in", "logs/out"])
@pytest.mark.parametrize("token", [None, "team:wrong-password"])
def test_streams_are_closed_to_strangers(team: Team, path: str, token: str | None) -> None:
    address = f"{team.prefect.replace('http', 'ws')}/api/{path}"
    with connect(address, subprotocols=[Subprotocol("prefect")]) as stream:
        stream.send(json.dumps({"type": "auth", "token": token}))
        with pytest.raises(ConnectionClosed, match=r"1008 \(policy violation\)"):
            stream.recv(timeout=30)


def test_a_server_with_an_unknown_certificate_is_refused(team: Team, certificate: Certificate) -> None:
    text = (team.seed / "team.yaml").read_text(encoding="utf-8")
    url = text.partition("url: ")[2].split()[0]
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"{url}/api/health", timeout=30)
    trusting = ssl.create_default_context(cafile=str(certificate.path))
    with urllib.request.urlopen(f"{url}/api/health", timeout=30, context=trusting) as page:
        assert page.status == 200


def test_two_experiments_are_spread_over_two_clones(team: Team, leaks: list[str]) -> None:
    first = team.build()
    wait_for(lambda: team.tasks(first), 60, "the first build")
    # From here on `a` is busy, and `b` too late for it.
    b = team.start("b", "flows.team_servers", "worker")
    assert team.finished(first)["state"]["type"] == "COMPLETED"
    assert team.tasks(first) == {
        "prepare": "Completed",
        "distill": "Completed",
        "publish": "Completed",
        "share_all": "Completed",
    }
    b.wait_for("started!")
    runs = [team.build(overrides=[f"distill.temperature={t}"]) for t in (3.0, 4.0)]
    ended = [team.finished(run_id) for run_id in runs]
    assert [found["state"]["type"] for found in ended] == ["COMPLETED", "COMPLETED"], ended
    for run_id in runs:
        assert team.tasks(run_id) | {"share_all": ""} == {
            "prepare": "Cached", "distill": "Completed", "publish": "Completed", "share_all": ""
        }  # fmt: skip
    # At the same time, in different clones: b had built nothing before.
    assert max(found["start_time"] for found in ended) < min(found["end_time"] for found in ended)
    clones = {name: team.seed.parent / name for name in ("a", "b")}
    temperatures = {n: (c / "models/classifier/m").read_text() for n, c in clones.items()}
    assert set(temperatures.values()) == {"weights at 3.0", "weights at 4.0"}
    assert "prepare was built before by the team" in (team.seed.parent / "b.log").read_text()
    for root in clones.values():
        assert (root / "params.yaml").read_bytes() == (team.seed / "params.yaml").read_bytes()


def test_everything_is_in_one_mlflow(team: Team, s3: Store) -> None:
    code = """
import json
from mlflow import MlflowClient
client = MlflowClient()
experiment = client.get_experiment_by_name("pocketbert").experiment_id
runs = client.search_runs([experiment])
files = {r.info.run_id: [f.path for f in client.list_artifacts(r.info.run_id)] for r in runs}
print(json.dumps([{**r.to_dictionary(), "files": files[r.info.run_id]} for r in runs]))
"""
    said = run(team.seed.parent / "a", sys.executable, "-m", "flows.team", "python", "-c", code, variables=SECRETS)
    runs = json.loads(said)
    parents = [r for r in runs if "pocketbert.state" in r["data"]["tags"]]
    assert {r["data"]["params"]["distill.temperature"] for r in parents} == {"2.0", "3.0", "4.0"}
    assert {r["info"]["status"] for r in runs} == {"FINISHED"}
    assert all("report" in r["files"] and r["data"]["metrics"]["distill.train_loss"] > 0.0 for r in parents)
    stages = {r["info"]["run_id"]: r for r in runs if "pocketbert.stage" in r["data"]["tags"]}
    # One preparation and three trainings, whoever did them.
    assert len(stages) == 4
    assert len({r["data"]["tags"]["stage.prepare"] for r in parents}) == 1
    assert {r["data"]["tags"]["stage.distill"] for r in parents} <= set(stages)
    listing = f"""
import boto3
for found in boto3.resource("s3").Bucket({BUCKET!r}).objects.all():
    print(found.key)
"""
    keys = run(team.seed, sys.executable, "-c", listing, variables=s3.environment).split()
    assert any(key.startswith("mlflow/") and key.endswith("index.html") for key in keys)
    assert any(key.startswith(f"{team.seed.parent.name}/files/md5/") for key in keys)


def test_secrets_are_told_to_nobody(team: Team, leaks: list[str], postgres: int) -> None:
    assert leaks == []
    looked_at = 0
    for path in team.seed.parent.rglob("*"):
        if path.is_file() and path.name != "secrets.env" and ".git" not in path.parts:
            text = path.read_bytes().decode(errors="replace")
            assert not [word for word in WORDS if word in text], path
            looked_at += 1
    assert looked_at > 100
    login = {"PGPASSWORD": SECRETS["PGPASSWORD"]}
    dump = next(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"))
    for database in ("prefect", "mlflow"):
        uri = f"postgresql://pocketbert@127.0.0.1:{postgres}/{database}"
        text = run(team.seed, str(dump), uri, variables=login)
        assert "CREATE TABLE" in text
        assert not [word for word in WORDS if word in text], database


def test_ctrl_c_ends_the_servers_and_the_workers(team: Team) -> None:
    for process in reversed(team.running):
        process.end()
        assert process.process.returncode == 0, process.text
    for url in (team.prefect, team.mlflow):
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(url, timeout=5)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("listen: 127.0.0.1", "listen: 0.0.0.0", "auth is none, but prefect.listen is 0.0.0.0"),
        ("/prefect?", "/nowhere?", 'database "nowhere" does not exist'),
        ("s3://pocketbert/", "s3://elsewhere/", "s3://elsewhere/mlflow at https://127.0.0.1"),
        ("secrets.env", "open.env", "has mode 644, others could read it"),
    ],
)
def test_a_team_that_cannot_work_does_not_start(team: Team, old: str, new: str, words: str, tmp_path: Path) -> None:
    text = (team.seed / "team.yaml").read_text(encoding="utf-8").replace(old, new)
    if "auth" in words:
        text = text.replace("auth: basic", "auth: none")
    (tmp_path / "team.yaml").write_text(text, encoding="utf-8")
    (tmp_path / ".pocketbert").mkdir()
    (tmp_path / ".pocketbert/open.env").write_text("PGPASSWORD=x\n")
    secrets = {**SECRETS, "POCKETBERT_PROFILE": "team", "PYTHONPATH": str(team.seed)}
    done = subprocess.run(
        [sys.executable, "-m", "flows.up"],
        cwd=tmp_path, env=environment(secrets), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not [word for word in WORDS if word in done.stderr]

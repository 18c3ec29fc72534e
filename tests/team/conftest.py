"""PostgreSQL and an S3-compatible store on loopback, both with TLS, and small projects in clones that share no disk."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.team.tls import Certificate, make_certificate

SECRETS = {
    "PREFECT_API_AUTH_STRING": "team:prefect-pass-4711",
    "MLFLOW_TRACKING_USERNAME": "team",
    "MLFLOW_TRACKING_PASSWORD": "mlflow-pass-4712",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "flask-key-4713",
    "PGPASSWORD": "postgres-pass-4714",
    "AWS_ACCESS_KEY_ID": "aws-id-4715",
    "AWS_SECRET_ACCESS_KEY": "aws-key-4716",
}
BUCKET = "pocketbert"


@dataclass(frozen=True)
class Store:
    """An S3 endpoint with one bucket."""

    endpoint: str
    certificate: Path

    @property
    def environment(self) -> dict[str, str]:
        keys = {name: SECRETS[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        place = {"AWS_ENDPOINT_URL_S3": self.endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
        return {**keys, **place, "AWS_CA_BUNDLE": str(self.certificate)}


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    foreign = ("AWS_", "MLFLOW_", "DVC_", "PG", "POCKETBERT_", "PREFECT_", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, **(variables or {})}


def run(folder: Path, *command: str, variables: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=folder, env=environment(variables), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            pytest.fail(f"{what}: not within {seconds} s")
        time.sleep(0.2)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Store]:
    """moto's S3 server, in a process of its own."""
    port = free_port()
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port),
             "-c", certificate.path, "-k", certificate.key],
            env=environment(), stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_for(lambda: process.poll() is not None or _listens(port), 60, "the S3 server")
        assert process.poll() is None, log.read_text()
        store = Store(f"https://127.0.0.1:{port}", certificate.path)
        code = f"import boto3; boto3.client('s3').create_bucket(Bucket='{BUCKET}')"
        run(log.parent, sys.executable, "-c", code, variables=store.environment)
        yield store
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[int]:
    """Port of a PostgreSQL server with passwords, for TLS alone, and the data bases `prefect` and `mlflow`."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(shutil.which("initdb") or "/nowhere").parent]
    tools = found[-1]
    if not (tools / "initdb").exists():
        reason = "no PostgreSQL: apt-get install postgresql"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    # Below /tmp itself: pytest's folders are closed to other users, and initdb refuses to run as root.
    home = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    password = home / "password"
    password.write_text(SECRETS["PGPASSWORD"])
    key = shutil.copy(certificate.key, home)
    shutil.copy(certificate.path, home)
    other = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    if other:
        shutil.chown(home, "postgres")
        shutil.chown(password, "postgres")
        shutil.chown(key, "postgres")
    port, data = free_port(), home / "data"
    initdb = [tools / "initdb", "-D", data, "-U", "pocketbert", "-A", "scram-sha-256", f"--pwfile={password}", "-N"]
    subprocess.run([*other, *initdb], cwd=home, env=environment(), check=True, capture_output=True)
    rules = data / "pg_hba.conf"
    rules.write_text(rules.read_text().replace("\nhost ", "\nhostssl "))
    options = [f"-p{port}", f"-k{home}", "-clisten_addresses=127.0.0.1", "-cfsync=off", "-cssl=on",
               f"-cssl_cert_file={home / 'cert.pem'}", f"-cssl_key_file={key}"]  # fmt: skip
    with (tmp_path_factory.mktemp("postgres") / "log").open("w") as log:
        server = subprocess.Popen(
            [*other, tools / "postgres", "-D", data, *options], cwd=home, env=environment(), stdout=log, stderr=log
        )
    try:
        login = {
            "PGPASSWORD": SECRETS["PGPASSWORD"],
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGUSER": "pocketbert",
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(certificate.path),
        }
        ready = [tools / "pg_isready", "-q"]
        wait_for(lambda: subprocess.run(ready, env=environment(login)).returncode == 0, 60, "PostgreSQL")
        for name in ("prefect", "mlflow"):
            run(home, str(tools / "createdb"), name, variables=login)
        yield port
    finally:
        # "Fast shutdown".
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
        shutil.rmtree(home)


DVC_YAML = """
stages:
  prepare:
    cmd: python -m stages.prepare
    deps: [stages/prepare.py, data/raw/tiny.csv]
    params: [prepare]
    outs: [data/prepared, provenance/prepare.json]
    metrics: [metrics/prepare.json]
  distill:
    cmd: python -m stages.distill
    deps: [stages/distill.py, data/prepared]
    params: [distill]
    outs: [report, models, results/evaluate, results/benchmark, provenance/distill.json]
    metrics: [metrics/distill.json]
  publish:
    cmd: python -m stages.publish
    deps: [stages/publish.py, report]
    params: [params.yaml: ]
    outs: [results/publish, provenance/publish.json]
    metrics: [metrics/publish.json]
"""
PARAMS = """
prepare: {path: data/raw/tiny.csv}
distill: {temperature: 2.0}
quantize: {recipes: {tflite-fp16: {format: tflite, recipe: fp16}}}
"""
# A training of a second, and all that `publish` needs.
DISTILL = r"""
import time
from dataclasses import dataclass
from pathlib import Path

from pocketbert.artifacts import ArtifactCard
from pocketbert.params import DistillParams
from pocketbert.stage import Metrics, current_stage, run_stage


@dataclass(frozen=True)
class Inputs:
    prepared: Path = Path("data/prepared")


@dataclass(frozen=True)
class Outputs:
    report: Path = Path("report")
    models: Path = Path("models")
    evaluated: Path = Path("results/evaluate")
    benchmarked: Path = Path("results/benchmark")


def distill(params: DistillParams, inputs: Inputs, outputs: Outputs) -> Metrics:
    for step in range(10):
        current_stage().log_metrics({"train_loss": params.temperature / (step + 1)}, step)
        time.sleep(0.1)
    for name in ("torch-classifier", "onnx-fp32", "tflite-fp32", "tflite-fp16"):
        kind, _, rest = name.partition("-")
        folder = {"torch-classifier": rest, "tflite-fp16": f"quantized/{name}"}.get(name, kind)
        path = outputs.models / folder
        path.mkdir(parents=True)
        card = ArtifactCard(name=name, format=kind, model_file="m", max_length=8)
        (path / "artifact.json").write_text(card.model_dump_json())
        (path / "m").write_text(f"weights at {params.temperature}")
        (path / "tokenizer.json").write_text("{}")
    for folder in (outputs.report, outputs.evaluated, outputs.benchmarked):
        folder.mkdir(parents=True)
        (folder / "index.html").write_text(f"<html>{params.temperature}</html>")
    (outputs.report / "results.csv").write_text("artifact,format,device,accuracy\ntflite-fp16,tflite,local,0.9\n")
    return {"valid_accuracy": 0.9, "train_loss": params.temperature / 10}


if __name__ == "__main__":
    run_stage(distill)
"""


def make_seed(root: Path) -> Path:
    """A repository to clone: the real flows on a small pipeline, with a DVC remote in the bucket."""
    (root / "data/raw").mkdir(parents=True)
    shutil.copy2(ROOT / "data/raw/tiny.csv", root / "data/raw")
    for name in ("devices.yaml", "prefect.yaml", "team.yaml", ".gitignore"):
        shutil.copy2(ROOT / name, root / name)
    for name in ("flows", "stages"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "stages/distill.py").write_text(DISTILL, encoding="utf-8")
    (root / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    (root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    # As `dvc init` and `dvc remote add --default` write it.
    (root / ".dvc").mkdir()
    shutil.copy2(ROOT / ".dvc/.gitignore", root / ".dvc")
    remote = f"s3://{BUCKET}/{root.parent.name}"
    (root / ".dvc/config").write_text(
        f"[core]\n    analytics = false\n    remote = team\n['remote \"team\"']\n    url = {remote}\n"
    )
    run(root, "git", "init", "--quiet", "--initial-branch=main")
    commit(root)
    return root


def commit(root: Path) -> None:
    run(root, "git", "add", "--all")
    run(root, "git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "--quiet", "--message=x")


def clone(seed: Path, name: str) -> Path:
    target = seed.parent / name
    run(seed.parent, "git", "clone", "--quiet", str(seed), str(target))
    return target

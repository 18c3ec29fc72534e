"""`make up` and flows through its worker. The tests share one session and run in this order."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT
from tests.flows.conftest import Session, environment, free_port, wait_for
from tests.flows.night import BENCHMARK, BENCHMARK_STAGES
from tests.flows.runs import RUN_S, api, finished, start, task_states

pytestmark = pytest.mark.e2e


def test_both_pages_answer_and_everything_is_registered(session: Session) -> None:
    for url, title in ((session.prefect_url, b"Prefect"), (session.mlflow_url, b"MLflow")):
        with urllib.request.urlopen(url, timeout=20) as page:
            assert title in page.read()
        assert url in session.text
    found = {d["name"]: d for d in api(session, "deployments/filter", {})}
    assert set(found) == {"rebuild", "watch_data", "sweep", "benchmark_devices"}
    assert all(d["work_pool_name"] == "default" and d["schedules"] and d["tags"] for d in found.values())
    assert (session.root / ".pocketbert/prefect/prefect.db").is_file()
    with urllib.request.urlopen(f"{session.prefect_url}/ui-settings", timeout=20) as settings:
        assert json.load(settings)["api_url"] == "/api"
    # A worker beside the registration was once in its way for a minute ("database is locked").
    wait_for(lambda: "Worker 'ProcessWorker" in session.text, RUN_S, "the worker's start")
    assert session.text.index("deployments of prefect.yaml are registered") < session.text.index("Worker 'Process")


def test_of_two_flows_started_together_the_second_waits(session: Session) -> None:
    runs = [start(session, "rebuild"), start(session, "rebuild")]
    assert [finished(session, run)["type"] for run in runs] == ["COMPLETED", "COMPLETED"]
    states = sorted((task_states(session, run) for run in runs), key=lambda s: "Cached" in s.values())
    # The second found everything done by the first: it did not start before that had ended.
    assert list(states[0].items()) == [("prepare", "Completed"), ("finish", "Completed")]
    assert list(states[1].items()) == [("prepare", "Cached"), ("finish", "Cached")]
    assert (session.root / "prepared.txt").read_text().startswith("TEXT,LABEL")
    assert "Task run 'finish' - worst_classes is 12" in session.text


def test_a_failure_is_told_in_the_error_s_own_words(session: Session) -> None:
    run = start(session, "rebuild", overrides=["report.worst_classes=66"])
    state = finished(session, run)
    assert state["type"] == "FAILED"
    assert state["message"].splitlines()[0] == "finish: ValueError: the glue of row 7 is wet"
    assert "Traceback" in state["message"]
    assert task_states(session, run) == {"prepare": "Cached", "finish": "Failed"}
    # As after `dvc exp run -S`.
    assert "worst_classes: 66" in (session.root / "params.yaml").read_text(encoding="utf-8")


def stage_processes(session: Session) -> list[psutil.Process]:
    pids = session.root / "pids.json"
    wait_for(pids.exists, RUN_S, "the stage's start")
    processes = [psutil.Process(pid) for pid in json.loads(pids.read_text())]
    pids.unlink()
    assert len(processes) == 3
    return processes


def test_cancelling_ends_the_stage_and_its_children(session: Session) -> None:
    run = start(session, "rebuild", overrides=["report.worst_classes=88"])
    processes = stage_processes(session)
    # Looking at the data neither waits for a rebuild nor disturbs it: dvc would take the other's lock.
    assert finished(session, start(session, "watch_data"))["name"] == "Busy"
    api(session, f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert finished(session, run)["type"] == "CANCELLED"
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []


def test_what_is_no_override_is_refused_at_once(session: Session) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        start(session, "rebuild", overrides=["no assignment"])
    assert refused.value.code in (409, 422)


def test_watch_data_rebuilds_after_a_change_of_the_raw_data_only(session: Session) -> None:
    finish = session.root / "finish.py"
    finish.write_text(finish.read_text().replace("88", "89"))
    with (session.root / "data/raw/commodities.csv").open("a", encoding="utf-8") as stream:
        stream.write("usb cable,cables\n")
    assert finished(session, start(session, "watch_data"))["type"] == "COMPLETED"
    assert (session.root / "prepared.txt").read_text().endswith("USB CABLE,CABLES\n")
    assert (session.root / "finished.txt").read_text() == "88"
    finish.write_text(finish.read_text().replace("89", "88"))


def test_a_flow_that_was_killed_outright_is_crashed_and_holds_up_nobody(session: Session) -> None:
    """Not under the worker, which would tell: started by hand."""
    variables = {"PREFECT_API_URL": f"{session.prefect_url}/api", "DO_NOT_TRACK": "1"}
    flow = subprocess.Popen(
        [sys.executable, "-m", "flows.rebuild", "report.worst_classes=88"], cwd=session.root,
        env=environment(**variables, PREFECT_HOME=str(session.root / ".pocketbert/prefect")),
    )  # fmt: skip
    processes = stage_processes(session)
    newest = {"sort": "EXPECTED_START_TIME_DESC", "limit": 1, "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    (run,) = api(session, "flow_runs/filter", newest)
    flow.kill()
    flow.wait()
    assert psutil.wait_procs(processes, timeout=5)[1] == []
    # The next one does not wait for the death to be noticed.
    again = start(session, "rebuild", overrides=["report.worst_classes=12"])
    assert finished(session, again)["type"] == "COMPLETED"
    assert finished(session, run["id"])["type"] == "CRASHED"
    states = {t["state_type"] for t in api(session, "task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})}
    assert states == {"COMPLETED", "CRASHED"}


def test_a_flow_that_is_killed_under_the_worker_is_crashed(session: Session) -> None:
    run = start(session, "rebuild", overrides=["report.worst_classes=88"])
    stage_processes(session)
    process = api(session, f"flow_runs/{run}")["labels"]["pocketbert.process"]
    os.kill(int(process.split()[0]), signal.SIGKILL)
    assert finished(session, run)["type"] == "CRASHED"


def measure(session: Session, one: float, two: float) -> tuple[str, dict[str, Any], float]:
    """(id, state, p50 of `one` in the workspace) of a night in which the devices take so long."""
    for name, p50 in {"one": one, "two": two}.items():
        (session.root / f"{name}.p50").write_text(str(p50))
    run = start(session, "benchmark_devices", tag="nightly")
    state = finished(session, run)
    document = json.loads((session.root / "results/benchmark/one/benchmark.json").read_text())
    return run, state, document["rows"][0]["latency_p50_ms"]


def test_devices_are_measured_side_by_side_and_compared_with_what_is_published(session: Session) -> None:
    kept = {name: (session.root / name).read_text() for name in ("dvc.yaml", "devices.yaml")}
    (session.root / "benchmark.py").write_text(BENCHMARK, encoding="utf-8")
    (session.root / "dvc.yaml").write_text(kept["dvc.yaml"] + BENCHMARK_STAGES, encoding="utf-8")
    devices = {name: {"kind": "local", "tags": ["nightly"]} for name in ("one", "two")}
    (session.root / "devices.yaml").write_text(json.dumps({"devices": {**devices, "three": {"kind": "local"}}}))
    run, state, p50 = measure(session, 10.0, 20.0)
    assert (state["type"], p50) == ("COMPLETED", 10.0), state
    assert task_states(session, run) == {"one": "Completed", "two": "Completed"}
    assert (session.root / "results/publish/done").exists()
    # Slower beyond the noise: named, and the published figures are back in the workspace.
    run, state, p50 = measure(session, 12.0, 20.0)
    assert (state["type"], p50) == ("FAILED", 10.0)
    (line,) = state["message"].splitlines()
    assert line.startswith("tflite-fp32 on one: slower: 1.200 times the time (99% interval ")
    # A device that does not answer leaves the other alone, and nothing is published in part.
    run, state, p50 = measure(session, 10.1, -1.0)
    assert (state["type"], p50) == ("FAILED", 10.0)
    assert state["message"].splitlines()[0] == "benchmark@two: the board does not answer"
    assert task_states(session, run) == {"one": "Completed", "two": "Failed"}
    for name, text in kept.items():
        (session.root / name).write_text(text, encoding="utf-8")


def test_a_sweep_runs_each_experiment_and_names_the_one_that_failed(session: Session) -> None:
    for command in (["git", "init", "-q"], ["git", "add", "*.py", "*.yaml", ".dvc", "data", "flows"],
                    ["git", "config", "user.name", "t"], ["git", "config", "user.email", "t@example.invalid"],
                    ["git", "commit", "-qm", "x"], ["dvc", "config", "core.no_scm", "false"]):  # fmt: skip
        subprocess.run(command, cwd=session.root, env=environment(), check=True)
    (session.root / "sweep.yaml").write_text("report.worst_classes: [5, 66]\n", encoding="utf-8")
    run = start(session, "sweep", file="sweep.yaml", jobs=2)
    state = finished(session, run)
    name = api(session, f"flow_runs/{run}")["name"]
    assert state["type"] == "FAILED"
    assert state["message"].splitlines()[1] == f"{name}-2: ValueError: the glue of row 7 is wet"
    assert task_states(session, run) == {f"{name}-1": "Completed", f"{name}-2": "Failed"}
    names = subprocess.run(["dvc", "exp", "list", "--name-only"], cwd=session.root, env=environment(), check=True,
                           capture_output=True, text=True).stdout.split()  # fmt: skip
    assert names == [f"{name}-1"]
    # DVC's own workers would stay for a while.
    processes = [process.info for process in psutil.process_iter(["cwd", "cmdline"])]
    workers = [process["cwd"] for process in processes if "queue-worker" in (process["cmdline"] or [])]
    assert [folder for folder in workers if str(folder).startswith(str(session.root))] == []


def test_no_task_is_shown_as_running_for_ever(session: Session) -> None:
    """Not that of the flow that was killed some tests ago: the worker tells of the flow alone."""
    running = {"task_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}}
    wait_for(lambda: not api(session, "task_runs/filter", running), 120, "the end of all tasks")


def test_the_log_has_no_server_error(session: Session) -> None:
    assert "Internal Server Error" not in session.text
    assert "Can't evaluate" not in session.text
    assert "IntegrityError" not in session.text


def test_ctrl_c_ends_everything_a_running_stage_too(session: Session) -> None:
    start(session, "rebuild", overrides=["report.worst_classes=88"])
    processes = [*stage_processes(session), *psutil.Process(session.process.pid).children(recursive=True)]
    session.process.send_signal(signal.SIGINT)
    assert session.process.wait(timeout=60) == 0
    _, alive = psutil.wait_procs(processes, timeout=1)
    assert alive == []
    for name in ("worker", "mlflow", "prefect"):
        assert f"ending {name}" in session.text


@pytest.mark.parametrize("variable", ["PREFECT_PORT", "MLFLOW_PORT"])
def test_a_port_that_cannot_be_had_is_one_clear_line(variable: str, tmp_path: Path) -> None:
    def up(port: object) -> "subprocess.CompletedProcess[str]":
        ports = {"PREFECT_PORT": str(free_port()), "MLFLOW_PORT": str(free_port()), variable: str(port)}
        command = [sys.executable, "-m", "flows.up"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment(**ports, PYTHONPATH=str(ROOT)), capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = up(port)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"port {port} on 127.0.0.1" in done.stderr
    assert f"{variable}={port + 1} make up" in done.stderr
    assert f"{variable}=http is no port" in up("http").stderr
    assert not list(tmp_path.iterdir())


def test_make_up_runs_it() -> None:
    # Under `make test`, the make above hands down its own options, such as to say what is entered and left.
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", "--no-print-directory", "up"]
    plan = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=True).stdout
    assert plan.splitlines()[-1] == "exec python -m flows.up"


def test_a_server_that_ends_by_itself_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from flows.servers import Server, ServerError, _require_running

    server = Server("broken", ["json.tool", os.devnull], {})
    with pytest.raises(ServerError, match="broken ended by itself with 1"):
        for _ in range(200):
            _require_running([server])
            time.sleep(0.05)
    server.end()
    assert "broken  | " in capsys.readouterr().out

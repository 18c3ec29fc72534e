"""What a flow costs beside dvc itself, how soon `make up` is ready, and publishing into a store with many runs.

    cd a-built-project && python /path/to/benchmarks/flow_costs.py

The project must be up to date; it is left as it is, but for runs in Prefect's own store. The copy of its MLflow store
gets 200 more runs. Flow and dvc are run in turn, and processor seconds stand beside the clock's.
"""

import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

sys.path.insert(0, str(Path.cwd()))
from flows.servers import answers
from flows.workspace import stage_order

ROUNDS, RUNS = 3, 200
_REMEMBERED = Path(".pocketbert/published")

_PAST = """
import sys
from pocketbert.params import load_params
from pocketbert.tracking.store import Store
store = Store(load_params().publish)
for number in range(int(sys.argv[1])):
    run = store.client.create_run(store.experiment_id, tags={"pocketbert.execution_id": f"past-{number}"})
    store.log_points(run.info.run_id, [(1, step, {"loss": 1 / (step + 1)}) for step in range(50)])
    store.end(run.info.run_id, "FINISHED", 2)
"""
_PUBLISH = """
import sys
from pathlib import Path
from pocketbert.params import load_params
from stages.publish import Inputs, Outputs, publish
publish(load_params(), Inputs(), Outputs(Path(sys.argv[1])))
"""


def free_port() -> str:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor in children that have ended."""

    def processor() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    wall, used = time.monotonic(), processor()
    action()
    return time.monotonic() - wall, processor() - used


def run(environment: dict[str, str], *command: str) -> str:
    """Standard output; raises CalledProcessError."""
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def up(environment: dict[str, str], log: Path) -> tuple[float, float, "subprocess.Popen[bytes]"]:
    """(seconds until `make up` was ready, of the processor in living processes until then, its process)"""
    started = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-m", "flows.up"], env=environment, stdout=stream, stderr=stream)
    while "Ctrl-C ends all" not in log.read_text(encoding="utf-8", errors="replace"):
        if process.poll() is not None:
            raise RuntimeError(log.read_text(encoding="utf-8", errors="replace")[-2000:])
        time.sleep(0.2)
    ready = time.monotonic() - started
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    return ready, sum(sum(one.cpu_times()[:2]) for one in tree), process


def flow_beside_dvc(environment: dict[str, str], stages: list[str]) -> list[tuple[float, float]]:
    """Seconds a stage that the flow adds to dvc's own, by the clock and of the processor, a pair a round."""

    def bare() -> None:
        for stage in stages:
            run(environment, sys.executable, "-m", "dvc", "repro", "--single-item", stage)

    added = []
    for _ in range(ROUNDS):
        dvc = timed(bare)
        flow = timed(lambda: run(environment, sys.executable, "-m", "flows.rebuild"))
        added.append(((flow[0] - dvc[0]) / len(stages), (flow[1] - dvc[1]) / len(stages)))
        print(f"dvc {dvc[0]:.1f} s ({dvc[1]:.1f} s cpu), flow {flow[0]:.1f} s ({flow[1]:.1f} s cpu)", flush=True)
    return added


def publish_seconds(environment: dict[str, str], folder: Path) -> dict[str, tuple[float, float]]:
    """Publishing the present state again, in a process of its own and into a copy of the store with 200 more runs.

    (seconds by the clock, of the processor), straight into the store and through a server on it, each where it was
    written to since and where it was not.
    """
    shutil.copy2("mlflow.db", folder / "mlflow.db")
    own = {**environment, "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    run(own, sys.executable, "-c", _PAST, str(RUNS))
    publish = (sys.executable, "-c", _PUBLISH, str(folder / "published"))
    remembered = set(_REMEMBERED.glob("*.json"))
    found = {f"store, {words}": timed(lambda: run(own, *publish)) for words in ("asked", "nothing written since")}
    with served(own, folder) as uri:
        own["MLFLOW_TRACKING_URI"] = uri
        found |= {f"server, {words}": timed(lambda: run(own, *publish)) for words in ("asked", "nothing changed since")}
    for memory in set(_REMEMBERED.glob("*.json")) - remembered:
        memory.unlink()
    return found


@contextmanager
def served(environment: dict[str, str], folder: Path) -> Iterator[str]:
    """MLflow's server on the copy of the store; its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", port, "--workers", "1", "--no-serve-artifacts"]
    command += ["--backend-store-uri", environment["MLFLOW_TRACKING_URI"]]
    with (folder / "served.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        while not answers(f"http://127.0.0.1:{port}/health"):
            if server.poll() is not None:
                raise RuntimeError((folder / "served.log").read_text(encoding="utf-8")[-2000:])
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def main() -> int:
    """Measure, print; 1 where a limit is missed."""
    ports = {"PREFECT_PORT": free_port(), "MLFLOW_PORT": free_port()}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **ports, "PATH": path, "DO_NOT_TRACK": "1"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        published = publish_seconds(environment, folder)
        ready, ready_cpu, process = up(environment, folder / "up.log")
        try:
            api = {"PREFECT_API_URL": f"http://127.0.0.1:{ports['PREFECT_PORT']}/api"}
            added = flow_beside_dvc({**environment, **api}, stage_order())
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
    wall, processor = (statistics.median(values) for values in zip(*added, strict=True))
    print(f"load of the machine            {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores")
    print(f"flow beside dvc, a stage       {wall:.2f} s ({processor:.2f} s cpu), at most 1.5")
    print(f"make up is ready after         {ready:.0f} s ({ready_cpu:.0f} s cpu), at most 30")
    for words, (seconds, used) in published.items():
        print(f"publish, {words:<30}{seconds:.2f} s ({used:.2f} s cpu), with {RUNS} more runs; unchanged at most 2")
    unchanged = [seconds for words, (seconds, _) in published.items() if "since" in words]
    return int(wall > 1.5 or ready > 30 or max(unchanged) > 2)


if __name__ == "__main__":
    sys.exit(main())

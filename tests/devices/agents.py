"""Benchmarks of seconds without a model: a program that sleeps stands in for one, through the real agent."""

import sys
from pathlib import Path
from typing import Any

from pocketbert.devices.base import Owner, Plan, PlannedArtifact, Sustained
from pocketbert.devices.follow import Patience
from pocketbert.devices.links.base import Link
from pocketbert.devices.links.local import LocalLink
from pocketbert.devices.session import DeviceSession, this_process

SIMULATOR = """
import json, sys, time
runs, sleep_s = int(sys.argv[1]) or 20, float(sys.argv[2])
if "fail" in sys.argv: sys.exit("out of paper")
started = time.monotonic()
time.sleep(sleep_s)
latencies = [5 + i % 3 for i in range(runs)]
answer = {"runtime": "simulator 1", "latencies_ms": latencies, "logits": [[1.0, 2.0], [3.0, 0.5]]}
print("a line of chatter")
print(json.dumps({**answer, "wall_s": time.monotonic() - started}))
"""
IMPATIENT = Patience(poll_s=0.05, silence_s=2.0, reconnect_s=2.0)


def simulated(name: str, *words: str, sleep_s: float = 0.05) -> PlannedArtifact:
    """An artifact whose measurement takes `sleep_s`."""
    command = [sys.executable, "-c", SIMULATOR, "{runs}", str(sleep_s), *words]
    return PlannedArtifact(name=name, engine="native", model="/none", inputs="/none", command=command)


def make_plan(session: DeviceSession, artifacts: list[PlannedArtifact], **changes: Any) -> Plan:
    """Two rounds of two runs each."""
    keys = {
        "work": session.work, "agent": session.agent, "interpreter": sys.executable, "owner": this_process(),
        "watch_owner": False, "artifacts": artifacts, "proof_rows": 2, "accuracy_rows": 0, "warmup": 0, "threads": 1,
        "runs": 4, "rounds": 2, "max_rounds": 2, "ci_width": None, "budget_s": 60, "timeout_s": 30, "seed": 13,
        "sustained": Sustained(), "cool_down_s": 0, "max_temperature_c": None, "governor": None, "sample_s": 0.2,
    }  # fmt: skip
    return Plan.model_validate(keys | changes)


def open_session(folder: Path, link: Link | None = None, patience: Patience = IMPATIENT) -> DeviceSession:
    """A session on this machine with its work in `folder`."""
    return DeviceSession("board", link or LocalLink(), str(folder), sys.executable, patience)


GONE = Owner(host=this_process().host, pid=1, started="0")
ELSEWHERE = Owner(host="another-machine", pid=1, started="0")

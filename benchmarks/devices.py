"""Eight devices side by side against one: `python -m benchmarks.devices [--devices 8] [--seconds 20]`.

The devices are agents on this machine, each in a folder of its own; a program that sleeps stands in for the model, so
that eight of them are no more work than one. Prints the wall times and their ratio.
"""

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

from pocketbert.devices.base import Plan, PlannedArtifact, Sustained
from pocketbert.devices.links.local import LocalLink
from pocketbert.devices.session import DeviceSession, this_process

_SLEEPER = """
import json, sys, time
time.sleep(float(sys.argv[1]))
print(json.dumps({"latencies_ms": [5.0] * 10, "logits": [[1.0, 2.0]]}))
"""


def measure(work: Path, seconds: float) -> None:
    """One benchmark: two artifacts in two rounds, `seconds` in all."""
    command = [sys.executable, "-S", "-c", _SLEEPER, str(seconds / 4)]
    artifacts = [
        PlannedArtifact(name=name, engine="native", model="-", inputs="-", command=command) for name in ("a", "b")
    ]
    with DeviceSession(work.name, LocalLink(), str(work), sys.executable) as session:
        plan = Plan(
            work=session.work, agent=session.agent, interpreter=sys.executable, owner=this_process(), watch_owner=True,
            artifacts=artifacts, proof_rows=1, accuracy_rows=0, warmup=0, threads=1, runs=20, rounds=2, max_rounds=2,
            ci_width=None, budget_s=600, timeout_s=600, seed=13, sustained=Sustained(), cool_down_s=0,
            max_temperature_c=None, governor=None,
        )  # fmt: skip
        measured = [event for event in session.run(plan, 0) if event["event"] == "measured"]
    if len(measured) != 4:
        raise SystemExit(f"{work.name}: {len(measured)} of 4 measurements")


def wall_time(devices: int, seconds: float) -> float:
    """Seconds until `devices` benchmarks that start together are done."""
    with tempfile.TemporaryDirectory(prefix="pocketbert-devices-") as scratch:
        threads = [
            threading.Thread(target=measure, args=(Path(scratch, f"device-{i}"), seconds)) for i in range(devices)
        ]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - started


def main() -> None:
    """Print both wall times and their ratio; exit code 1 where it is over 1.2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0)
    wanted = parser.parse_args()
    one, many = wall_time(1, wanted.seconds), wall_time(wanted.devices, wanted.seconds)
    print(f"1 device {one:.1f} s, {wanted.devices} devices {many:.1f} s: {many / one:.2f} times")
    sys.exit(0 if many <= 1.2 * one else 1)


if __name__ == "__main__":
    main()

"""What waiting costs: `pocketbert --help`, a no-op `dvc repro`, and (with --full) a whole default build.

    python benchmarks/speed.py [--full]

Run it after `make repro`; --full builds everything again in a temporary clone and takes minutes.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pocketbert.provenance import processor_name  # noqa: E402

BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def seconds(command: list[str], cwd: Path, repeats: int) -> list[float]:
    """Wall seconds of each repetition; stops at the first failure."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, cwd=cwd, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return times


def show(what: str, times: list[float], target_s: float) -> None:
    """Print a line of the table."""
    print(f"| {what} | {statistics.median(times):.2f} | {min(times):.2f} to {max(times):.2f} | {target_s:g} |")


def build_in_a_clone() -> tuple[float, float]:
    """Wall seconds and the largest resident set, in GB, of any process of a build in a fresh clone."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "clone")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        (wall,) = seconds(["dvc", "repro"], clone, repeats=1)
    return wall, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, {processor_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| what | median s | range s | target s |\n|---|---|---|---|")
    show("pocketbert --help", seconds(["pocketbert", "--help"], ROOT, 5), 0.5)
    show("dvc repro with nothing to do", seconds(["dvc", "repro"], ROOT, 5), 2.5)
    if arguments.full:
        wall, peak_gb = build_in_a_clone()
        show("dvc repro of everything (default data)", [wall], 600)
        print(f"\nlargest process of that build: {peak_gb:.1f} GB resident (target 6)")


if __name__ == "__main__":
    main()

"""A minutely schedule while the clock jumps and the servers are started again: is any time of it run twice?

    apt-get install gcc libc6-dev && python benchmarks/clock_jump.py

One store: the clock jumps 150 s ahead and later 150 s back while `make up` runs (the wall clock, not the monotonic one,
as when a machine's clock is set); then `make up` is ended with SIGKILL and started again. Exits 1 where a time of
the schedule has two runs, a run was started twice, or none was started in one of the parts.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.fault_project import FaultProject, doubled, wait_for

_AHEAD_S = 150
_EACH_S = 150


def have_own_clock(project: FaultProject) -> None:
    """Have all of the project's processes read a clock that `jump` sets; called before `start`."""
    library = project.root / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-o", library, source], check=True)
    jump(project, 0)
    project.environment |= {"LD_PRELOAD": str(library), "CLOCK_FILE": str(project.root / "clock")}


def jump(project: FaultProject, seconds: int) -> None:
    """Set the wall clock so far ahead of the machine's, in running processes too."""
    file = project.root / "clock"
    file.touch()
    with file.open("r+b") as stream:
        stream.write(seconds.to_bytes(8, sys.byteorder, signed=True))


def start_again(project: FaultProject) -> None:
    """Kill `make up` and start it on the same store."""
    project.up.send_signal(signal.SIGKILL)
    project.up.wait()
    wait_for(lambda: not project.processes(), 60, "the end of all processes")
    print(f"ready again after {project.start():.0f} s", flush=True)


def main() -> int:
    """Run, print, judge."""
    problems = []
    with tempfile.TemporaryDirectory(prefix="clock-", ignore_cleanup_errors=True) as folder:
        project = FaultProject(Path(folder) / "project")
        project.every_minute()
        have_own_clock(project)
        print(f"make up was ready after {project.start():.0f} s", flush=True)
        before = 0
        parts: dict[str, Callable[[], object]] = {
            "the machine's clock": project.scheduled,
            f"{_AHEAD_S} s ahead": lambda: jump(project, _AHEAD_S),
            "back": lambda: jump(project, 0),
            "after a kill": lambda: start_again(project),
        }
        for name, act in parts.items():
            act()
            # After a jump back, the times that were run already come again.
            time.sleep(_EACH_S + (_AHEAD_S if name == "back" else 0))
            runs = project.scheduled()
            print(f"{name}: {len(runs)} runs so far, {Counter(run['state_name'] for run in runs)}", flush=True)
            problems += [] if len(runs) > before else [f"{name}: nothing was started"]
            before = len(runs)
        project.stop()
    problems += doubled(runs)
    print("\n".join(problems or [f"{len(runs)} runs, none doubled"]))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())

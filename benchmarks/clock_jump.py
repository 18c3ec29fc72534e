"""A minutely schedule while the servers are started again and the clock jumps: is any time of it run twice?

    apt-get install faketime && python benchmarks/clock_jump.py

`make up` three times on one store: by the machine's clock, 150 s ahead of it, and by the machine's clock again, which
for Prefect is a jump ahead and one back. Exits 1 where a time of the schedule has two runs, or a run was started twice.
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.fault_project import FaultProject

_AHEAD_S = 150
_EACH_S = 130


def scheduled(project: FaultProject) -> list[dict[str, Any]]:
    """Runs of the schedule that were started."""
    body = {"flow_runs": {"deployment_id": {"is_null_": False}}, "limit": 200}
    return [run for run in project.post("flow_runs/filter", body) if run["auto_scheduled"] and run["run_count"]]


def main() -> int:
    """Run, print, judge."""
    with tempfile.TemporaryDirectory(prefix="clock-", ignore_cleanup_errors=True) as folder:
        project = FaultProject(Path(folder) / "project")
        text = (project.root / "prefect.yaml").read_text(encoding="utf-8")
        (project.root / "prefect.yaml").write_text(text.replace("interval: 600", 'cron: "* * * * *"'), encoding="utf-8")
        for prefix in ([], ["faketime", "-f", f"+{_AHEAD_S}s"], []):
            print(f"ready after {project.start(prefix):.0f} s{' with the clock ahead' if prefix else ''}", flush=True)
            time.sleep(_EACH_S)
            runs = scheduled(project)
            print(f"{len(runs)} scheduled runs so far: {Counter(run['state_name'] for run in runs)}", flush=True)
            project.stop()
    times = Counter((run["deployment_id"], run["expected_start_time"]) for run in runs)
    doubled = [f"{when} has {n} runs" for (_, when), n in times.items() if n > 1]
    doubled += [f"{run['name']} was started {run['run_count']} times" for run in runs if run["run_count"] > 1]
    print("\n".join(doubled or [f"{len(runs)} runs, none doubled"]))
    return int(bool(doubled))


if __name__ == "__main__":
    sys.exit(main())

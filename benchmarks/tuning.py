"""What `pocketbert tune` finds and takes for a built classifier: `python benchmarks/tuning.py PROJECT [--recipe NAME]`.

PROJECT is a folder with params.yaml, devices.yaml, data/prepared and models/classifier; nothing in it is changed.
Processor time stands beside the time on the clock: on a busy machine the two differ.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from pocketbert.params import load_params
from pocketbert.tuning.command import as_text
from pocketbert.tuning.tune import Request, tune


def main() -> None:
    """Tune and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--device", default="local")
    parser.add_argument("--recipe")
    parser.add_argument("--budget-s", type=float, default=300.0)
    arguments = parser.parse_args()
    os.chdir(arguments.project)
    with tempfile.TemporaryDirectory(prefix="pocketbert-tuning-") as profiles:
        request = Request(
            arguments.device, arguments.budget_s, recipe=arguments.recipe, profiles=Path(profiles, "profiles")
        )
        started = time.monotonic()
        print(as_text(tune(request, load_params()), applied=False))
        seconds = time.monotonic() - started
    used = sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    print(f"{seconds:.0f} s on the clock, {used:.0f} s of processor time here; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

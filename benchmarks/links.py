"""What breaks a link, at moments of chance, and what it costs; how fast files go.

    python -m benchmarks.links [--kinds ssh,adb] [--moments 20] [--seed 13]

Against a real sshd and a real adbd on loopback (tests/devices/links: they need openssh-server, and adbd as fetched by
tests/devices/links/fetch_adbd.sh). Each row counts what was lost, doubled or wrong; 0 is the only good figure.
"""

import argparse
import os
import random
import sys
from collections.abc import Callable

from benchmarks.link_faults import Row, break_benchmarks, break_following, break_pushes, fill_disks
from benchmarks.link_speed import compare_speed
from pocketbert.provenance import processor_name


def main() -> None:
    """Print the tables of docs/reliability.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default="ssh,adb")
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=13)
    arguments = parser.parse_args()
    chance, moments = random.Random(arguments.seed), arguments.moments
    print(f"{processor_name()}, {os.cpu_count()} cores, seed {arguments.seed}\n")
    print("| | moments | wrong | told after, median / longest (s) | |\n| --- | --- | --- | --- | --- |")
    wrong = 0
    for kind in arguments.kinds.split(","):
        runs: dict[str, Callable[[str], Row]] = {
            "cut while pushing": lambda k: break_pushes(k, "cut", moments, chance),
            "frozen while pushing": lambda k: break_pushes(k, "freeze", moments, chance),
            "cut while following": lambda k: break_following(k, "cut", moments, chance),
            "frozen while following": lambda k: break_following(k, "freeze", moments, chance),
            "cut twice in a benchmark": lambda k: break_benchmarks(k, moments, chance),
            "disk filled while pushing": lambda k: fill_disks(k, moments, chance),
        }
        for name, run in runs.items():
            row = run(kind)
            wrong += row.wrong
            print(row.text(f"{kind}: {name}", moments), flush=True)
    print()
    for kind in arguments.kinds.split(","):
        print(compare_speed(kind), flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

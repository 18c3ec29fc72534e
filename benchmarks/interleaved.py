"""Latency of several .tflite files in one interleaved run, each round of each file in a fresh process.

Run as a program it measures one file once and prints its latencies as JSON (this is what the parent starts).
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Series:
    """Raw latencies of one file in milliseconds, a list a round."""

    path: Path
    rounds_ms: list[list[float]] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Median over all runs."""
        return float(np.median(np.concatenate(self.rounds_ms)))

    @property
    def round_medians_ms(self) -> list[float]:
        """Median of each round: their range is the spread between processes."""
        return [float(np.median(r)) for r in self.rounds_ms]


def measure_interleaved(
    paths: Mapping[str, Path], *, rounds: int, runs: int, warmup: int, threads: int, seed: int = 13
) -> dict[str, Series]:
    """Measure every file once a round, in an order that is shuffled each round."""
    series = {name: Series(path) for name, path in paths.items()}
    order = list(series)
    shuffler = random.Random(seed)
    for index in range(rounds):
        shuffler.shuffle(order)
        for name in order:
            command = [sys.executable, "-m", "benchmarks.interleaved", str(series[name].path.resolve())]
            command += ["--runs", str(runs), "--warmup", str(warmup), "--threads", str(threads)]
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=1800)
            series[name].rounds_ms.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"round {index + 1} of {rounds} done", file=sys.stderr)
    return series


def measure_once(path: Path, *, runs: int, warmup: int, threads: int) -> list[float]:
    """Latencies of `runs` invocations in milliseconds, after `warmup` ones; full-length rows of token id 2000."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    for tensor in interpreter.get_input_details():
        value = np.ones(tensor["shape"], dtype=tensor["dtype"])
        if "ids" in tensor["name"] and "type" not in tensor["name"]:
            value *= 2000
        interpreter.set_tensor(tensor["index"], value)
    latencies = []
    for index in range(warmup + runs):
        started = time.perf_counter_ns()
        interpreter.invoke()
        if index >= warmup:
            latencies.append((time.perf_counter_ns() - started) / 1e6)
    return latencies


def main() -> None:
    """Measure one file and print its latencies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--warmup", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    latencies = measure_once(arguments.path, runs=arguments.runs, warmup=arguments.warmup, threads=arguments.threads)
    print(json.dumps(latencies), flush=True)
    # LiteRT's destructors are known to crash at interpreter exit; the answer is out.
    os._exit(0)


if __name__ == "__main__":
    main()

"""Processor time of two .tflite files, run in turns in one process: for ratios near 1, which two processes would blur.

Run as a program it measures once and prints the pairs as JSON (this is what the parent starts).
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent


def measure_in_turns(first: Path, second: Path, *, rounds: int, runs: int) -> NDArray[np.float64]:
    """Milliseconds [rounds * runs, 2] of both files, `runs` pairs in each of `rounds` fresh processes."""
    pairs: list[list[float]] = []
    for seed in range(rounds):
        command = [sys.executable, "-m", "benchmarks.in_turns", str(first), str(second), str(runs), str(seed)]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=1800)
        pairs += json.loads(done.stdout.splitlines()[-1])
        print(f"round {seed + 1} of {rounds} done", file=sys.stderr)
    return np.array(pairs)


def ratio_of_medians(pairs: NDArray[np.float64], draws: int = 2000) -> tuple[float, float, float]:
    """Median of the second over that of the first, and the 95 % interval of a bootstrap over the pairs."""
    random_rows = np.random.default_rng(13).integers(len(pairs), size=(draws, len(pairs)))
    medians = np.median(pairs[random_rows], axis=1)
    low, high = np.percentile(medians[:, 1] / medians[:, 0], [2.5, 97.5])
    first, second = np.median(pairs, axis=0)
    return float(second / first), float(low), float(high)


def _measure(paths: list[Path], runs: int, seed: int, warmup: int = 3) -> list[list[float]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreters = []
    for path in paths:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
        for tensor in interpreter.get_input_details():
            interpreter.set_tensor(tensor["index"], np.ones(tensor["shape"], dtype=tensor["dtype"]))
        interpreters.append(interpreter)
    pairs, order, shuffler = [], [0, 1], random.Random(seed)
    for index in range(warmup + runs):
        pair = [0.0, 0.0]
        # The one that runs first finds the caches as the other left them.
        shuffler.shuffle(order)
        for which in order:
            started = time.process_time_ns()
            interpreters[which].invoke()
            pair[which] = (time.process_time_ns() - started) / 1e6
        if index >= warmup:
            pairs.append(pair)
    return pairs


if __name__ == "__main__":
    print(json.dumps(_measure([Path(p) for p in sys.argv[1:3]], int(sys.argv[3]), int(sys.argv[4]))), flush=True)
    # LiteRT's destructors are known to crash at interpreter exit; the answer is out.
    os._exit(0)

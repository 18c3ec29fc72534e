"""What reading the sensors once a second costs the measurement beside it: with and without, interleaved.

`python -m benchmarks.sampling models/tflite` measures one .tflite or .onnx artifact in fresh processes through
the agent, alternately with a sample a second, one every 0.1 s, and none, and prints each median over the one without.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.devices.base import Plan, PlannedArtifact, Sustained
from pocketbert.devices.links.local import LocalLink
from pocketbert.devices.session import DeviceSession, this_process

_NEVER_S = 3600.0
_PERIODS_S = (_NEVER_S, 1.0, 0.1)


def measure(session: DeviceSession, artifact: Artifact, inputs: Path, period_s: float, runs: int) -> float:
    """Median latency in ms of one fresh process."""
    planned = PlannedArtifact(
        name=artifact.name,
        engine="litert" if artifact.card.format == "tflite" else "onnxruntime",
        model=str(artifact.model_path.resolve()),
        inputs=str(inputs),
    )
    plan = Plan(
        work=session.work, agent=session.agent, interpreter=sys.executable, owner=this_process(), watch_owner=True,
        artifacts=[planned], proof_rows=1, accuracy_rows=0, warmup=20, threads=1, runs=runs, rounds=1, max_rounds=1,
        ci_width=None, budget_s=600, timeout_s=600, seed=13, sustained=Sustained(), cool_down_s=0,
        max_temperature_c=None, governor=None, sample_s=period_s,
    )  # fmt: skip
    answer = next(e["answer"] for e in session.run(plan, 0) if e["event"] == "measured")
    return statistics.median(answer["latencies_ms"])


def main() -> None:
    """Print the ratios of medians, over all pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--runs", type=int, default=200)
    wanted = parser.parse_args()
    artifact = read_artifact(wanted.model)
    length = artifact.card.sequence_length or 32
    ids = np.random.default_rng(13).integers(5, 500, size=(16, length), dtype=np.int32)
    rows = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    medians: dict[float, list[float]] = {period: [] for period in _PERIODS_S}
    with tempfile.TemporaryDirectory(prefix="pocketbert-sampling-") as scratch:
        inputs = Path(scratch, "inputs.npz")
        np.savez(inputs, allow_pickle=False, **rows)
        with DeviceSession("here", LocalLink(), scratch, sys.executable) as session:
            for _ in range(wanted.pairs):
                for period in _PERIODS_S:
                    medians[period].append(measure(session, artifact, inputs, period, wanted.runs))
    for period in _PERIODS_S[1:]:
        ratios = [a / b for a, b in zip(medians[period], medians[_NEVER_S], strict=True)]
        low, high = np.quantile(ratios, [0.25, 0.75])
        print(f"a sample every {period:g} s: {statistics.median(ratios):.3f} (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()

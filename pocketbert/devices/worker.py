"""One measurement in a process of its own: `python -m pocketbert.devices.worker WORK_FOLDER`.

The process imports numpy and the artifact's own engine and nothing else that is large (the rows come
tokenized), so that its peak memory is the engine's and the model's.
"""

import gc
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.devices.base import (
    INPUTS_FILE,
    LOGITS_FILE,
    WorkerAnswer,
    WorkerRequest,
    read_request,
    write_answer,
)
from pocketbert.devices.telemetry import EnergyMeter, Thermometer, process_memory_bytes
from pocketbert.errors import DeviceError, PocketBertError
from pocketbert.process import die_with_parent
from pocketbert.runtimes.base import Runtime
from pocketbert.runtimes.engines import open_runtime

Rows = list[Mapping[str, NDArray[np.int32]]]


def measure(work: Path) -> None:
    """Prove, warm up, measure: writes logits.npy [proof_rows, classes] and answer.json into `work`."""
    request = read_request(work)
    artifact = read_artifact(request.artifact)
    rows = _read_rows(work / INPUTS_FILE)
    baseline = process_memory_bytes("VmRSS")
    runtime = open_runtime(artifact, threads=request.threads)
    logits = np.concatenate([runtime.run(row) for row in rows[: request.proof_rows]])
    if not np.isfinite(logits).all():
        raise DeviceError(
            f"{artifact.name} gives NaN or infinite logits",
            "Look at mask_value and at the recipe: fp16 overflows beyond 65504.",
        )
    np.save(work / LOGITS_FILE, logits)
    write_answer(work, _time_runs(request, artifact, runtime, rows, baseline))


def _read_rows(path: Path) -> Rows:
    """One batch of a single row, int32 [1, S] by input name, for each row of inputs.npz."""
    with np.load(path, allow_pickle=False) as file:
        arrays: dict[str, NDArray[np.int32]] = {name: file[name] for name in file.files}
    count = len(next(iter(arrays.values())))
    return [{name: values[i : i + 1] for name, values in arrays.items()} for i in range(count)]


def _time_runs(
    request: WorkerRequest, artifact: Artifact, runtime: Runtime, rows: Rows, baseline: int | None
) -> WorkerAnswer:
    """Time `runtime.run` of one row, binding of inputs and reading of logits included, tokenization not."""
    for index in range(request.warmup):
        runtime.run(rows[index % len(rows)])
    thermometer, meter = Thermometer.find(), EnergyMeter.find()
    temperature_start = thermometer.read_c()
    latencies_ns = []
    # As timeit does: a collection in the middle of a run is Python's time, not the model's.
    gc.collect()
    gc.disable()
    meter.start()
    cpu_start, wall_start = time.process_time_ns(), time.perf_counter_ns()
    for index in range(request.runs):
        row = rows[index % len(rows)]
        started = time.perf_counter_ns()
        runtime.run(row)
        latencies_ns.append(time.perf_counter_ns() - started)
    wall_s = (time.perf_counter_ns() - wall_start) / 1e9
    cpu_s = (time.process_time_ns() - cpu_start) / 1e9
    power = meter.mean_mw(wall_s)
    gc.enable()
    return WorkerAnswer(
        runtime=runtime.name,
        accelerator="cpu",
        latencies_ms=[ns / 1e6 for ns in latencies_ns],
        cpu_s=cpu_s,
        wall_s=wall_s,
        memory_baseline_bytes=baseline,
        # Read before the flatbuffer is opened for its operators.
        memory_peak_bytes=process_memory_bytes("VmHWM"),
        power_mean_mw=power,
        temperature_start_c=temperature_start,
        temperature_end_c=thermometer.read_c(),
        total_ops=count_operators(artifact),
        # XNNPACK runs on the CPU like the operators that it leaves out: nothing is handed to an accelerator.
        delegated_ops=None,
        partitions=None,
    )


def count_operators(artifact: Artifact) -> int | None:
    """Operators of a .tflite file over all its subgraphs, from the flatbuffer; None for other formats."""
    if artifact.card.format != "tflite":
        return None
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(artifact.model_path.read_bytes())
    return sum(model.Subgraphs(index).OperatorsLength() for index in range(model.SubgraphsLength()))


def main() -> None:
    """Run the request in the folder named on the command line."""
    die_with_parent()
    try:
        measure(Path(sys.argv[1]))
        code = 0
    except PocketBertError as error:
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
    sys.stdout.flush()
    sys.stderr.flush()
    # LiteRT's destructors are known to crash at interpreter exit; the answer is on disk.
    os._exit(code)


if __name__ == "__main__":
    main()

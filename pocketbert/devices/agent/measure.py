"""One measurement in a process of its own, which imports numpy, the model's engine and nothing else that is large."""

from __future__ import annotations

import base64
import gc
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .engine import Engine, Refused, Rows
from .engines import open_engine
from .files import write_json
from .native import measure_natively
from .telemetry import EnergyMeter, Thermometer, process_memory_bytes, process_pss_bytes


def measure(request_path: Path) -> None:
    """Prove, warm up, measure: writes the answer that the request names.

    A request holds engine, model, inputs (an .npz of int32 [rows, S]), threads, logit_rows, warmup, and either runs or
    seconds (a sustained measurement). Raises Refused.
    """
    request = json.loads(request_path.read_text(encoding="utf-8"))
    if request["engine"] == "native":
        write_json(Path(request["answer"]), measure_natively(request))
        return
    rows = _read_rows(request["inputs"])
    baseline = process_memory_bytes("VmRSS")
    # Libraries raise what they like, some of it bare Exceptions.
    try:
        engine = open_engine(request)
    except Refused:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise Refused(f"{Path(request['model']).name} cannot be loaded: {reason}") from error
    logits = _logits(engine, rows, request["logit_rows"])
    write_json(
        Path(request["answer"]), {**_time_runs(request, engine, rows), **logits, "memory_baseline_bytes": baseline}
    )


def _read_rows(path: str) -> list[Rows]:
    """One batch of a single row, int32 [1, S] by input name, for each row of the file."""
    import numpy as np

    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    count = len(next(iter(arrays.values())))
    return [{name: values[i : i + 1] for name, values in arrays.items()} for i in range(count)]


def _logits(engine: Engine, rows: list[Rows], count: int) -> dict[str, Any]:
    """Logits of the first rows, float32 [rows, classes] in base64; raises Refused on NaN and infinity."""
    import numpy as np

    logits = np.stack([engine.run(row) for row in rows[:count]]).astype("<f4")
    if not np.isfinite(logits).all():
        raise Refused(
            "it gives NaN or infinite logits. Look at mask_value and at the recipe: fp16 overflows beyond 65504."
        )
    return {"logits": base64.b64encode(logits.tobytes()).decode(), "classes": int(logits.shape[1])}


def _time_runs(request: Mapping[str, Any], engine: Engine, rows: list[Rows]) -> dict[str, Any]:
    """Time the engine on one row, binding of inputs and reading of logits included, tokenization not."""
    if not engine.timed:
        # Proven it is; a driver in software takes seconds a row.
        request = {**request, "warmup": 0, "runs": 1, "seconds": None}
    for index in range(request["warmup"]):
        engine.run(rows[index % len(rows)])
    thermometer, meter = Thermometer.find(), EnergyMeter.find()
    temperature_start = thermometer.read_c()
    runs, seconds = request.get("runs", 0), request.get("seconds")
    latencies_ns: list[int] = []
    # As timeit does: a collection in the middle of a run is Python's time, not the model's.
    gc.collect()
    gc.disable()
    meter.start()
    started_s = time.monotonic()
    cpu_start, wall_start = time.process_time_ns(), time.perf_counter_ns()
    deadline = None if seconds is None else wall_start + int(seconds * 1e9)
    while len(latencies_ns) < runs if deadline is None else time.perf_counter_ns() < deadline:
        row = rows[len(latencies_ns) % len(rows)]
        before = time.perf_counter_ns()
        engine.run(row)
        latencies_ns.append(time.perf_counter_ns() - before)
    wall_s = (time.perf_counter_ns() - wall_start) / 1e9
    cpu_s = (time.process_time_ns() - cpu_start) / 1e9
    power = meter.mean_mw(wall_s)
    gc.enable()
    return {
        "runtime": engine.name,
        "accelerator": engine.accelerator,
        "gpu_adapter": engine.gpu_adapter,
        "latencies_ms": [ns / 1e6 for ns in latencies_ns],
        "started_s": started_s,
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "memory_peak_bytes": process_memory_bytes("VmHWM"),
        "memory_pss_bytes": process_pss_bytes(),
        "power_mean_mw": power,
        "temperature_start_c": temperature_start,
        "temperature_end_c": thermometer.read_c(),
        "delegated_ops": engine.delegated_ops,
        "partitions": engine.partitions,
    }

"""The engines that can run a model on the device, each in a few lines on its own library.

Rows are int32 arrays [1, S] by input name; `run` gives logits float32 [classes].
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .parts import run_in_turn

Rows = Mapping[str, Any]

_SIGNATURE = "serving_default"
_ONNX_DTYPES = {
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
}


class Refused(Exception):
    """The measurement cannot be had, for a reason that is said in one line."""


class Engine:
    """A loaded model; what could be told of its placement is None where it has no meaning."""

    accelerator = "cpu"
    # The GPU as its driver names it.
    gpu_adapter: str | None = None
    delegated_ops: int | None = None
    partitions: int | None = None

    def __init__(self, name: str, run: Callable[[Rows], Any]) -> None:
        # Engine and version, for instance "litert 2.3.0".
        self.name = name
        self.run = run


def open_engine(request: Mapping[str, Any]) -> Engine:
    """Load `request["model"]` with `request["engine"]`; raises what the library raises."""
    return _ENGINES[request["engine"]](request)


def _litert(request: Mapping[str, Any]) -> Engine:
    """LiteRT's interpreter on the CPU with its default XNNPACK delegate; a signature of static shape [1, S]."""
    import numpy as np

    if request["parts"]:
        return _litert_in_parts(request)
    lookup = _open_lookup(request["files"])
    interpreters = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = interpreters.Interpreter(model_path=request["model"], num_threads=request["threads"])
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner(_SIGNATURE)
    dtypes = {name: detail["dtype"] for name, detail in runner.get_input_details().items()}
    output = _pick_logits(list(runner.get_output_details()))

    def run(row: Rows) -> Any:
        given = row if lookup is None else lookup(row, dtypes)
        feed = {name: given[name].astype(dtype) for name, dtype in dtypes.items()}
        return np.asarray(runner(**feed)[output][0], dtype=np.float32)

    engine = Engine(f"litert {version('ai-edge-litert')}", run)
    # The runner does not keep its interpreter alive.
    engine.interpreter = interpreter  # type: ignore[attr-defined]
    return engine


def _litert_in_parts(request: Mapping[str, Any]) -> Engine:
    """A model that was cut to fit the device's memory: its parts are loaded and run in turn, a row at a time."""
    import numpy as np

    parts, paths = request["parts"], [request["files"][part["file"]] for part in request["parts"]]
    output = _pick_logits([tensor["name"] for tensor in parts[-1]["outputs"]])
    inputs = dict.fromkeys(name for part in parts for name in part["inputs"])
    lookup = _open_lookup(request["files"])

    def run(row: Rows) -> Any:
        given = row if lookup is None else lookup(row, inputs)
        values = {name: array[:, None] for name, array in given.items() if name in inputs}
        logits = run_in_turn(parts, paths, values, output, np.empty, request["threads"])
        return np.array(logits[0, 0], dtype=np.float32)

    return Engine(f"litert {version('ai-edge-litert')} in {len(parts)} parts", run)


def _open_lookup(files: Mapping[str, str]) -> Callable[[Rows, Mapping[str, Any]], Rows] | None:
    """The host's part of a graph that reads embeddings (see `pocketbert.runtimes.host_lookup`)."""
    import numpy as np

    if "host_embeddings.npy" not in files:
        return None
    words = np.load(files["host_embeddings.npy"], mmap_mode="r", allow_pickle=False)
    positions = np.load(files["host_positions.npy"], mmap_mode="r", allow_pickle=False)

    def look_up(row: Rows, names: Mapping[str, Any]) -> Rows:
        ids = row["input_ids"]
        types = row["token_type_ids"] if len(positions) > 1 else np.zeros_like(ids)
        found, placed = words[ids], positions[types, np.arange(ids.shape[1])]
        summed = found if "position_embeddings" in names else found + placed
        return {**row, "embeddings": summed, "position_embeddings": placed}

    return look_up


def _onnxruntime(request: Mapping[str, Any]) -> Engine:
    """ONNX Runtime with the CPU provider only."""
    import numpy as np

    library = importlib.import_module("onnxruntime")
    options = library.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = request["threads"], 1
    # 3 = errors: its warnings about the graph are for the exporter.
    options.log_severity_level = 3
    session = library.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])
    dtypes = {spec.name: _ONNX_DTYPES[spec.type] for spec in session.get_inputs()}
    output = [_pick_logits([spec.name for spec in session.get_outputs()])]

    def run(row: Rows) -> Any:
        feed = {name: row[name].astype(dtype) for name, dtype in dtypes.items()}
        return np.asarray(session.run(output, feed)[0][0], dtype=np.float32)

    return Engine(f"onnxruntime {library.__version__}", run)


def _pocketbert(request: Mapping[str, Any]) -> Engine:
    """pocketbert's own runtimes, where it is installed: torch models, and LiteRT on the GPU."""
    engines = importlib.import_module("pocketbert.runtimes.engines")
    runtime = engines.open_runtime(
        Path(request["model"]), threads=request["threads"], accelerator=request["accelerator"],
        precision=request["gpu_precision"] or "fp32", software_gpu=request["software_gpu"],
    )  # fmt: skip
    engine, placement = Engine(runtime.name, lambda row: runtime.run(row)[0]), runtime.placement()
    engine.accelerator, engine.gpu_adapter = placement.accelerator, placement.adapter
    if placement.accelerator != "cpu":
        engine.delegated_ops, engine.partitions = placement.delegated, placement.partitions
    return engine


_ENGINES: dict[str, Callable[[Mapping[str, Any]], Engine]] = {
    "litert": _litert,
    "onnxruntime": _onnxruntime,
    "pocketbert": _pocketbert,
}


def _pick_logits(outputs: list[str]) -> str:
    return "logits" if "logits" in outputs else outputs[0]

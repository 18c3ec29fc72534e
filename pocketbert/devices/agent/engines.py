"""The engines that can run a model on the device, each in a few lines on its own library."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .engine import Engine, Rows, pick_logits
from .parts import run_in_turn

_SIGNATURE = "serving_default"
_ONNX_DTYPES = {
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
}


def open_engine(request: Mapping[str, Any]) -> Engine:
    """Load `request["model"]` with `request["engine"]`; raises what the library raises."""
    return _ENGINES[request["engine"]](request)


def _litert(request: Mapping[str, Any]) -> Engine:
    """LiteRT on the GPU, or its interpreter with the default XNNPACK delegate; a signature of static shape [1, S]."""
    import numpy as np

    if request["accelerator"] == "gpu":
        return _litert_gpu(request)
    if request["parts"]:
        return _litert_in_parts(request)
    lookup = _open_lookup(request["files"])
    interpreters = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = interpreters.Interpreter(model_path=request["model"], num_threads=request["threads"])
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner(_SIGNATURE)
    dtypes = {name: detail["dtype"] for name, detail in runner.get_input_details().items()}
    output = pick_logits(list(runner.get_output_details()))

    def run(row: Rows) -> Any:
        given = row if lookup is None else lookup(row, dtypes)
        feed = {name: given[name].astype(dtype) for name, dtype in dtypes.items()}
        return np.asarray(runner(**feed)[output][0], dtype=np.float32)

    engine = Engine(f"litert {version('ai-edge-litert')}", run)
    # The runner does not keep its interpreter alive.
    engine.interpreter = interpreter  # type: ignore[attr-defined]
    return engine


def _litert_gpu(request: Mapping[str, Any]) -> Engine:
    """LiteRT's CompiledModel with its GPU accelerator; raises Refused where that is no GPU or took no operator."""
    from .litert_gpu import open_gpu
    from .litert_log import require_gpu

    lookup = _open_lookup(request["files"])
    model = open_gpu(Path(request["model"]), request["gpu_precision"], request["threads"], request["total_ops"])
    require_gpu(model.placement, software_gpu=request["software_gpu"])
    engine = Engine(model.name, lambda row: model.run(row if lookup is None else lookup(row, model.inputs))[0])
    engine.accelerator, engine.gpu_adapter = "gpu", model.placement.adapter
    engine.delegated_ops, engine.partitions = model.placement.delegated, model.placement.partitions
    engine.timed = not model.placement.software
    return engine


def _litert_in_parts(request: Mapping[str, Any]) -> Engine:
    """A model that was cut to fit the device's memory: its parts are loaded and run in turn, a row at a time."""
    import numpy as np

    parts, paths = request["parts"], [request["files"][part["file"]] for part in request["parts"]]
    output = pick_logits([tensor["name"] for tensor in parts[-1]["outputs"]])
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
    session = library.InferenceSession(_with_companions(request), options, providers=["CPUExecutionProvider"])
    dtypes = {spec.name: _ONNX_DTYPES[spec.type] for spec in session.get_inputs()}
    output = [pick_logits([spec.name for spec in session.get_outputs()])]

    def run(row: Rows) -> Any:
        feed = {name: row[name].astype(dtype) for name, dtype in dtypes.items()}
        return np.asarray(session.run(output, feed)[0][0], dtype=np.float32)

    return Engine(f"onnxruntime {library.__version__}", run)


def _with_companions(request: Mapping[str, Any]) -> str:
    """The model's path, with the files beside it that it names itself (tensors of an ONNX file): in the store all are
    named by their content.
    """
    if not request["files"]:
        return str(request["model"])
    folder = Path(request["answer"]).parent / "model"
    shutil.rmtree(folder, ignore_errors=True)
    for name, stored in {**request["files"], "model.onnx": request["model"]}.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(stored, place)
        except OSError:  # Android allows apps none, and some file systems know none
            shutil.copyfile(stored, place)
    return str(folder / "model.onnx")


def _pocketbert(request: Mapping[str, Any]) -> Engine:
    """pocketbert's own runtime for torch models, where it is installed."""
    engines = importlib.import_module("pocketbert.runtimes.engines")
    runtime = engines.open_runtime(Path(request["model"]), threads=request["threads"])
    return Engine(runtime.name, lambda row: runtime.run(row)[0])


_ENGINES: dict[str, Callable[[Mapping[str, Any]], Engine]] = {
    "litert": _litert,
    "onnxruntime": _onnxruntime,
    "pocketbert": _pocketbert,
}

"""LiteRT's interpreter on the CPU, with its default XNNPACK delegate."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.data.tokenize import Batch
from pocketbert.errors import DeviceError
from pocketbert.runtimes.base import Placement, TensorSpec, fit_rows, own_output, take_row
from pocketbert.runtimes.host_lookup import with_host_inputs

SIGNATURE = "serving_default"


class LiteRtRuntime:
    """A TFLite model with a signature of static shape [1, ...]; rows are run one after another."""

    def __init__(self, interpreter: Interpreter, path: Path, signature: str | None) -> None:
        self.name = f"litert {version('ai-edge-litert')}"
        self._path = path
        by_name = interpreter.get_signature_runner(signature) if signature else _TensorRunner(interpreter)
        self._runner: Any = by_name
        details = self._runner.get_input_details()
        self.inputs = tuple(
            TensorSpec(name, np.dtype(detail["dtype"]).name, tuple(int(d) for d in detail["shape"]))
            for name, detail in details.items()
        )
        outputs = self._runner.get_output_details()
        self._output = main_output(outputs)
        if not np.issubdtype(outputs[self._output]["dtype"], np.floating):
            raise ValueError(f"its output {self._output} is quantized; its logits must be floating-point")

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits, float32 [rows, classes]; shorter rows are padded to S, longer ones raise DeviceError."""
        feed = fit_rows(with_host_inputs(self._path, batch), self.inputs)
        rows = [
            own_output(self._runner(**take_row(feed, row, self.inputs))[self._output])
            for row in range(len(next(iter(feed.values()))))
        ]
        return np.asarray(rows, dtype=np.float32)

    def placement(self) -> Placement:
        """All on the CPU: XNNPACK is no accelerator. The operators are counted in the file."""
        return Placement(total=count_operators(self._path))

    def close(self) -> None:
        """Release the model."""
        self._runner = None


class _TensorRunner:
    """What a signature's runner is, for a file that has none."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter

    def get_input_details(self) -> dict[str, Any]:
        return {detail["name"]: detail for detail in self._interpreter.get_input_details()}

    def get_output_details(self) -> dict[str, Any]:
        return {detail["name"]: detail for detail in self._interpreter.get_output_details()}

    def __call__(self, **feed: NDArray[Any]) -> dict[str, NDArray[Any]]:
        invoke(self._interpreter, [feed[name] for name in self.get_input_details()])
        return {name: self._interpreter.get_tensor(d["index"]) for name, d in self.get_output_details().items()}


def main_output(outputs: Iterable[str]) -> str:
    """`logits`, else the first by name: runtimes tell them in orders of their own."""
    names = sorted(outputs)
    return "logits" if "logits" in names else names[0]


def count_operators(path: Path) -> int:
    """Operators of a .tflite file over all its subgraphs."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes())
    return sum(model.Subgraphs(index).OperatorsLength() for index in range(model.SubgraphsLength()))


def open_artifact(artifact: Artifact, threads: int) -> LiteRtRuntime:
    """Load an artifact with XNNPACK; raises DeviceError."""
    return open_file(artifact.model_path, threads, SIGNATURE)


def open_file(path: Path, threads: int, signature: str | None = None) -> LiteRtRuntime:
    """Load any .tflite file with XNNPACK, by its first signature unless one is named; raises DeviceError.

    A file without signatures is run by the names of its tensors.
    """
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
        return LiteRtRuntime(interpreter, path, signature or next(iter(interpreter.get_signature_list()), None))
    except (ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DeviceError(
            f"{path} cannot be loaded: {reason}",
            f"`pocketbert inspect` says whether it is cut short, has no signature {SIGNATURE!r} or asks for custom "
            "operators; `dvc repro` builds it again.",
        ) from error


def invoke(interpreter: Any, arrays: Sequence[NDArray[Any]]) -> None:
    """Run an interpreter on inputs in the file's order, resized where they are dynamic; raises what LiteRT raises."""
    details = interpreter.get_input_details()
    if any(tuple(d["shape"]) != a.shape for d, a in zip(details, arrays, strict=True)):
        for detail, array in zip(details, arrays, strict=True):
            interpreter.resize_tensor_input(detail["index"], array.shape)
        interpreter.allocate_tensors()
    for detail, array in zip(details, arrays, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()

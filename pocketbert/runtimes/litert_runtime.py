"""LiteRT's interpreter on the CPU, with its default XNNPACK delegate."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.data.tokenize import Batch
from pocketbert.errors import DeviceError
from pocketbert.runtimes.base import TensorSpec

SIGNATURE = "serving_default"


class LiteRtRuntime:
    """A TFLite model with a signature of static shape [1, S]; rows are run one after another."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.name = f"litert {version('ai-edge-litert')}"
        self._runner: Any = interpreter.get_signature_runner(SIGNATURE)
        details = self._runner.get_input_details()
        self.inputs = tuple(
            TensorSpec(name, np.dtype(detail["dtype"]).name, tuple(int(d) for d in detail["shape"]))
            for name, detail in details.items()
        )
        outputs = self._runner.get_output_details()
        self._output = "logits" if "logits" in outputs else next(iter(outputs))
        if not np.issubdtype(outputs[self._output]["dtype"], np.floating):
            raise ValueError(f"its output {self._output} is quantized; its logits must be floating-point")
        self.sequence_length = int(details["input_ids"]["shape"][1])

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits, float32 [rows, classes]; shorter rows are padded to S, longer ones raise DeviceError."""
        length = batch["input_ids"].shape[1]
        if length > self.sequence_length:
            raise DeviceError(
                f"rows of {length} tokens for a model of static length {self.sequence_length}",
                "Truncate them, or export again with a larger export_tflite.sequence_length.",
            )
        padding = ((0, 0), (0, self.sequence_length - length))
        # The id of a padded position does not matter: its mask is 0.
        feed = {spec.name: np.pad(batch[spec.name], padding).astype(spec.dtype) for spec in self.inputs}
        rows = [
            self._runner(**{name: values[row : row + 1] for name, values in feed.items()})[self._output][0]
            for row in range(len(batch["input_ids"]))
        ]
        return np.asarray(rows, dtype=np.float32)

    def close(self) -> None:
        """Release the model."""
        self._runner = None


def open_artifact(artifact: Artifact, threads: int) -> LiteRtRuntime:
    """Load with XNNPACK; raises DeviceError."""
    try:
        interpreter = Interpreter(model_path=str(artifact.model_path), num_threads=threads)
        interpreter.allocate_tensors()
        return LiteRtRuntime(interpreter)
    except (ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DeviceError(
            f"{artifact.model_path} cannot be loaded: {reason}",
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

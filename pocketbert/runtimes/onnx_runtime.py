"""ONNX Runtime on the CPU."""

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.data.tokenize import Batch
from pocketbert.errors import DeviceError
from pocketbert.runtimes.base import Placement, TensorSpec

_DTYPES = {"tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(float)": "float32", "tensor(float16)": "float16"}


class OnnxRuntime:
    """An ONNX model with the inputs of a BERT classifier and logits as its first output."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self._session = session
        self.inputs = tuple(
            TensorSpec(i.name, _DTYPES[i.type], tuple(d if isinstance(d, int) else None for d in i.shape))
            for i in session.get_inputs()
        )
        outputs = [o.name for o in session.get_outputs()]
        self._output = "logits" if "logits" in outputs else outputs[0]

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits, float32 [rows, classes]."""
        feed = {spec.name: batch[spec.name].astype(spec.dtype) for spec in self.inputs}
        (logits,) = self._session.run([self._output], feed)
        return np.asarray(logits, dtype=np.float32)

    def placement(self) -> Placement:
        """All on the CPU; an optimized graph's operators are not the file's, so they are not counted."""
        return Placement()

    def close(self) -> None:
        """Release the model."""
        del self._session


def open_artifact(artifact: Artifact, threads: int) -> OnnxRuntime:
    """Load with the CPU provider only; raises DeviceError."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # 3 = errors: its warnings about the graph are for the exporter, not for every process that runs it.
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(artifact.model_path), options, providers=["CPUExecutionProvider"])
        return OnnxRuntime(session)
    # ONNX Runtime's exceptions share no base class of their own.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise DeviceError(
            f"{artifact.model_path} cannot be loaded: {reason}",
            "`pocketbert inspect` says whether it is cut short, lacks its external data or asks for custom operators; "
            "`dvc repro` builds it again.",
        ) from error

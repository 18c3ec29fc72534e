"""torch, eager mode, on the CPU."""

import numpy as np
import torch
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.data.tokenize import Batch
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.runtimes.base import Placement, TensorSpec


class TorchRuntime:
    """A `PocketBertClassifier` in fp32."""

    def __init__(self, model: PocketBertClassifier, threads: int) -> None:
        # One setting for the whole process: torch has no thread pool a model.
        torch.set_num_threads(threads)
        self.name = f"torch {torch.__version__.split('+')[0]}"
        self._model = model
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if model.uses_token_types else [])]
        self.inputs = tuple(TensorSpec(name, "int64", (None, None)) for name in names)

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits, float32 [rows, classes]."""
        tensors = {spec.name: torch.from_numpy(batch[spec.name].astype(np.int64)) for spec in self.inputs}
        with torch.inference_mode():
            logits = self._model(**tensors).logits
        return logits.float().numpy()

    def placement(self) -> Placement:
        """All on the CPU; eager mode has no operators to count."""
        return Placement()

    def close(self) -> None:
        """Release the model."""
        del self._model


def open_artifact(artifact: Artifact, threads: int) -> TorchRuntime:
    """Load what save_pretrained wrote; raises CheckpointError on weights that are damaged or not all there."""
    return TorchRuntime(load_classifier(artifact.folder), threads)

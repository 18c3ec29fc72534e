"""torch -> ONNX through optimum, with the registered classifier and a mask value that half precision can hold."""

import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from optimum.exporters.onnx import export
from optimum.exporters.onnx.config import TextEncoderOnnxConfig
from optimum.utils import NormalizedTextConfig

from pocketbert.artifacts import ArtifactCard, read_artifact, write_artifact
from pocketbert.data.dataset import read_labels
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ExportError
from pocketbert.export.rewrites import replace_mask_value
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.params import ExportOnnxParams
from pocketbert.stage import Metrics

MODEL_FILE = "model.onnx"
# Batch and length of the traced example; the proof runs the file at other shapes.
TRACED_SHAPE = {"batch_size": 2, "sequence_length": 8}


def export_onnx(params: ExportOnnxParams, classifier: Path, folder: Path) -> Metrics:
    """Write the ONNX artifact of `classifier`; return its size, opset, replaced mask constants and seconds.

    Raises ExportError for an opset that the exporter or the model's operations do not have.
    """
    source, labels = read_artifact(classifier), read_labels(classifier)
    started = time.monotonic()
    model = to_onnx(load_classifier(classifier), params.opset)
    masks = replace_mask_value(model, params.mask_value)
    folder.mkdir(parents=True)
    onnx.save(model, folder / MODEL_FILE)
    card = ArtifactCard(name="onnx-fp32", format="onnx", model_file=MODEL_FILE, max_length=source.card.max_length)
    artifact = write_artifact(folder, card, labels, TextEncoder(classifier))
    return {
        "size_bytes": artifact.size_bytes,
        "opset": params.opset,
        "mask_constants_replaced": masks,
        "conversion_s": round(time.monotonic() - started, 2),
    }


def to_onnx(model: PocketBertClassifier, opset: int) -> onnx.ModelProto:
    """Export a classifier in memory: int64 [batch, sequence] inputs by name -> logits [batch, classes].

    Raises ExportError.
    """
    config = PocketBertOnnxConfig(model.encoder.config, task="text-classification")
    config.uses_token_types = model.uses_token_types
    return to_onnx_as(config, model, opset)


def to_onnx_as(config: "PocketBertOnnxConfig", model: torch.nn.Module, opset: int) -> onnx.ModelProto:
    """Export a torch model in memory with the inputs and outputs that `config` describes; raises ExportError."""
    with tempfile.TemporaryDirectory(prefix="pocketbert-") as scratch, without_tracer_warnings():
        path = Path(scratch, MODEL_FILE)
        try:
            export(model.eval(), config, path, opset=opset, input_shapes=TRACED_SHAPE)
        except (torch.onnx.errors.OnnxExporterError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ExportError(
                f"the model cannot be exported with export_onnx.opset = {opset}: {reason}",
                "Set export_onnx.opset to 17.",
            ) from error
        exported = onnx.load(path)
    written = next((entry.version for entry in exported.opset_import if entry.domain in ("", "ai.onnx")), None)
    if written != opset:
        raise ExportError(f"opset {opset} was asked for, {written} was written", "Set export_onnx.opset to 17.")
    return exported


class PocketBertOnnxConfig(TextEncoderOnnxConfig):
    """optimum's description of the classifier's inputs and outputs, built on the encoder's configuration."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig
    uses_token_types = False

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Names and dynamic axes of the inputs."""
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if self.uses_token_types else [])]
        return {name: {0: "batch_size", 1: "sequence_length"} for name in names}


@contextmanager
def without_tracer_warnings() -> Iterator[None]:
    """Silence what the tracer says of every Python `if`: that the trace generalises is proven by `validate`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", message="Constant folding")
        # optimum chooses torch's TorchScript exporter, which torch calls its legacy one.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(torch|optimum)\.")
        yield

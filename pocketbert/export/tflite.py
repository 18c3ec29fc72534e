"""torch -> our TensorFlow graph (weight transplant) -> TFLite."""

import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pocketbert.artifacts import ArtifactCard, read_artifact, write_artifact
from pocketbert.data.dataset import read_labels
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ExportError
from pocketbert.export.token_axis import restore_token_axis
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.numerics.layers_proof import LAYERS_FILE
from pocketbert.params import ExportTfliteParams
from pocketbert.stage import Metrics

if TYPE_CHECKING:
    from pocketbert.export.tf_classifier import TracedClassifier

MODEL_FILE = "model.tflite"


def export_tflite(params: ExportTfliteParams, classifier: Path, folder: Path, texts: Sequence[str] = ()) -> Metrics:
    """Write the TFLite artifact of `classifier` and transplant.json; return size, counts and seconds.

    With `texts`, layers.json too: the layers of the TensorFlow graph against torch's, on rows made of them.
    Raises ExportError, ParamsError (sequence length over the model's limit) and ProofError (transplant).
    """
    source, labels = read_artifact(classifier), read_labels(classifier)
    started = time.monotonic()
    model, encoder = load_classifier(classifier), TextEncoder(classifier)
    traced = trace(model, params.sequence_length, params.mask_value)
    content = to_flatbuffer(traced)
    folder.mkdir(parents=True)
    (folder / MODEL_FILE).write_bytes(content)
    record = [line.as_dict() for line in traced.transplanted]
    (folder / "transplant.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    card = ArtifactCard(
        name="tflite-fp32",
        format="tflite",
        model_file=MODEL_FILE,
        sequence_length=params.sequence_length,
        max_length=min(params.sequence_length, source.card.max_length),
    )
    write_artifact(folder, card, labels, encoder)
    metrics = {
        "size_bytes": len(content),
        "sequence_length": params.sequence_length,
        "tensors_transplanted": len(record),
        "conversion_s": round(time.monotonic() - started, 2),
    }
    if not texts:
        return metrics
    from pocketbert.export.tf_states import prove_graph

    proof = prove_graph(traced.module, model, encoder, texts, (card.max_length, params.sequence_length))
    (folder / LAYERS_FILE).write_text(json.dumps(proof.as_dict(), indent=1) + "\n", encoding="utf-8")
    return {**metrics, **proof.headline()}


def convert(model: PocketBertClassifier, sequence_length: int, mask_value: float) -> bytes:
    """The .tflite file of a classifier in memory, trained or not; raises like `export_tflite`."""
    return to_flatbuffer(trace(model, sequence_length, mask_value))


def trace(model: PocketBertClassifier, sequence_length: int, mask_value: float) -> "TracedClassifier":
    """`trace_classifier`, with TensorFlow imported quietly."""
    # 2: warnings about missing GPU libraries on a machine that has no GPU are not shown.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pocketbert.export.tf_classifier import trace_classifier

    return trace_classifier(model, sequence_length, mask_value)


def to_flatbuffer(traced: "TracedClassifier") -> bytes:
    """Convert a traced graph; the signature `serving_default` keeps its input and output names."""
    import tensorflow as tf
    from tensorflow.lite.python.convert import ConverterError

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.function], traced.module)
    try:
        return restore_token_axis(bytes(converter.convert()))[0]
    except ConverterError as error:
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"TensorFlow cannot convert the graph: {reason}", "Please report this model.") from error

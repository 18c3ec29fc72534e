"""torch -> our TensorFlow graph (weight transplant) -> TFLite."""

import json
import logging
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pocketbert.artifacts import ArtifactCard, read_artifact, write_artifact
from pocketbert.data.dataset import read_labels
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ExportError
from pocketbert.export.token_axis import restore_token_axis
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.numerics.fusion_bases import write_bases
from pocketbert.numerics.layers_proof import LAYERS_FILE
from pocketbert.params import FUSIONS, ExportTfliteParams, GraphProfile, GraphVariants
from pocketbert.stage import Metrics

if TYPE_CHECKING:
    from pocketbert.export.tf_classifier import TracedClassifier

MODEL_FILE, FUSIONS_FILE = "model.tflite", "fusions.json"


def export_tflite(params: ExportTfliteParams, classifier: Path, folder: Path, texts: Sequence[str] = ()) -> Metrics:
    """Write the TFLite artifact of `classifier` and transplant.json; return size, counts and seconds.

    With `texts`, rows made of them prove every fusion (fusions.json) and compare the layers of the TensorFlow graph
    with torch's (layers.json). Raises ExportError, ParamsError (sequence length over the model's limit) and ProofError
    (transplant, fusion).
    """
    source, labels = read_artifact(classifier), read_labels(classifier)
    started = time.monotonic()
    model, encoder = load_classifier(classifier), TextEncoder(classifier)
    traced = trace(model, params.sequence_length, params.mask_value, params.profile, params.fuse, params.variants)
    content = to_flatbuffer(traced, stock=params.profile == "stock")
    folder.mkdir(parents=True)
    (folder / MODEL_FILE).write_bytes(content)
    write_bases(traced.weights, folder / MODEL_FILE)
    _write_host_tables(traced, folder)
    record = [line.as_dict() for line in traced.transplanted]
    _write_json(folder / "transplant.json", record)
    card = ArtifactCard(
        name="tflite-fp32",
        format="tflite",
        model_file=MODEL_FILE,
        sequence_length=params.sequence_length,
        max_length=min(params.sequence_length, source.card.max_length),
        graph_profile=params.profile,
        fused=tuple(sorted(traced.weights.fusions)),
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
    fused = _prove_fusions(params, model, encoder, texts, folder, card.max_length) if traced.weights.fusions else {}
    from pocketbert.export.tf_states import prove_graph

    proof = prove_graph(traced, model, encoder, texts, (card.max_length, params.sequence_length))
    _write_json(folder / LAYERS_FILE, proof.as_dict())
    return {**metrics, **fused, **proof.headline()}


def _prove_fusions(
    params: ExportTfliteParams,
    model: PocketBertClassifier,
    encoder: TextEncoder,
    texts: Sequence[str],
    folder: Path,
    max_length: int,
) -> Metrics:
    from pocketbert.export.fusion_proof import FLOAT32_LIMIT, FLOAT64_LIMIT, proof_rows, prove_fusions

    started = time.monotonic()
    rows = proof_rows(model, encoder, texts, max_length)
    proofs, together = prove_fusions(model, params.mask_value, params.fuse, rows)
    document = {
        "limits": {"float64_diff": FLOAT64_LIMIT, "float32_diff": FLOAT32_LIMIT},
        "rows": len(rows["input_ids"]),
        "fusions": [proof.as_dict() for proof in proofs],
        "all_float32_diff": together,
    }
    _write_json(folder / FUSIONS_FILE, document)
    seconds = round(time.monotonic() - started, 2)
    return {"fusions": len(proofs), "fusion_rel_diff": together, "fusion_proof_s": seconds}


def _write_host_tables(traced: "TracedClassifier", folder: Path) -> None:
    from pocketbert.numerics.fusion import HOST_POSITIONS, HOST_WORDS
    from pocketbert.runtimes.host_lookup import HostLookup

    if HOST_WORDS in traced.weights:
        HostLookup(traced.weights.value(HOST_WORDS), traced.weights.value(HOST_POSITIONS)).write(folder)


def _write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def convert(
    model: PocketBertClassifier,
    sequence_length: int,
    mask_value: float,
    profile: GraphProfile = "delegate",
    fuse: Collection[str] = FUSIONS,
    variants: GraphVariants | None = None,
) -> bytes:
    """The .tflite file of a classifier in memory, trained or not; raises like `export_tflite`."""
    traced = trace(model, sequence_length, mask_value, profile, fuse, variants)
    return to_flatbuffer(traced, stock=profile == "stock")


def trace(
    model: PocketBertClassifier,
    sequence_length: int,
    mask_value: float,
    profile: GraphProfile = "delegate",
    fuse: Collection[str] = FUSIONS,
    variants: GraphVariants | None = None,
) -> "TracedClassifier":
    """`trace_classifier`, with TensorFlow imported quietly."""
    # 2: warnings about missing GPU libraries on a machine that has no GPU are not shown.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pocketbert.export.tf_classifier import trace_classifier

    return trace_classifier(model, sequence_length, mask_value, profile, fuse, variants)


def to_flatbuffer(traced: "TracedClassifier", *, stock: bool = False) -> bytes:
    """Convert a traced graph; the signature `serving_default` keeps its input and output names.

    `stock`: as the converter leaves it, without what a GPU needs to be right.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert import ConverterError

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.function], traced.module)
    try:
        converted = bytes(converter.convert())
    except ConverterError as error:
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"TensorFlow cannot convert the graph: {reason}", "Please report this model.") from error
    return converted if stock else restore_token_axis(converted)[0]

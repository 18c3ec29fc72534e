"""Exports of the toy classifiers in another graph profile than the default, made once a process."""

import functools
import tempfile
from pathlib import Path

from pocketbert.export.tflite import export_tflite
from pocketbert.params import ExportTfliteParams, GraphProfile
from tests.export.trained import SEQUENCE_LENGTH, trained_classifier


@functools.cache
def profiled(family: str, profile: GraphProfile) -> Path:
    """The .tflite file; never write beside it."""
    folder = Path(tempfile.mkdtemp(prefix=f"pocketbert-{family}-{profile}-"), "tflite")
    params = ExportTfliteParams(sequence_length=SEQUENCE_LENGTH, profile=profile)
    export_tflite(params, trained_classifier(family), folder)
    return folder / "model.tflite"

"""Transplant the classifier's weights into our TensorFlow graph and convert it to TFLite."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import ExportTfliteParams
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    classifier: Path = Path("models/classifier")
    prepared: Path = Path("data/prepared")


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    tflite: Path = Path("models/tflite")


def export_tflite(params: ExportTfliteParams, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Write the TFLite artifact and the transplant's record; return its size and counts."""
    from pocketbert.data.dataset import read_labels, read_split
    from pocketbert.export.tflite import export_tflite as export

    texts = read_split(inputs.prepared / "test.parquet", read_labels(inputs.prepared)).texts
    return export(params, inputs.classifier, outputs.tflite, texts)


if __name__ == "__main__":
    run_stage(export_tflite)

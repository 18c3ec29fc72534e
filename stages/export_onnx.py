"""Export the classifier to ONNX."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import ExportOnnxParams
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    classifier: Path = Path("models/classifier")


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    onnx: Path = Path("models/onnx")


def export_onnx(params: ExportOnnxParams, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Write the ONNX artifact; return its size and opset."""
    from pocketbert.export.onnx import export_onnx as export

    return export(params, inputs.classifier, outputs.onnx)


if __name__ == "__main__":
    run_stage(export_onnx)

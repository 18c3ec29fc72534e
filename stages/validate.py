"""Prove that the exported models are the classifier."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import ValidateParams
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    classifier: Path = Path("models/classifier")
    onnx: Path = Path("models/onnx")
    tflite: Path = Path("models/tflite")
    prepared: Path = Path("data/prepared")


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    results: Path = Path("results/validate")


def validate(params: ValidateParams, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Write the comparison of logits and of every transplanted tensor; raise ProofError beyond the limits."""
    from pocketbert.data.dataset import read_labels, read_split
    from pocketbert.numerics.validate import validate_exports

    texts = read_split(inputs.prepared / "test.parquet", read_labels(inputs.prepared)).texts
    return validate_exports(params, inputs.classifier, [inputs.onnx, inputs.tflite], texts, outputs.results)


if __name__ == "__main__":
    run_stage(validate)

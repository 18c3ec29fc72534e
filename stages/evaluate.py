"""Measure the accuracy of every artifact on the test and validation splits."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import Params
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    teacher: Path = Path("models/teacher")
    classifier: Path = Path("models/classifier")
    onnx: Path = Path("models/onnx")
    tflite: Path = Path("models/tflite")
    quantized: Path = Path("models/quantized")
    prepared: Path = Path("data/prepared")


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    results: Path = Path("results/evaluate")
    plots: Path = Path("plots/evaluate")


def evaluate(params: Params, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Write a row an artifact, the predictions and the confusion; return the headline figures."""
    from pocketbert.artifacts import read_artifacts
    from pocketbert.data.dataset import read_labels, read_split
    from pocketbert.quantize.calibration import check_calibration
    from pocketbert.runtimes.evaluate import evaluate_artifacts

    quantized = [inputs.quantized / variant for variant in params.quantize.recipes]
    artifacts = read_artifacts([inputs.teacher, inputs.classifier, inputs.onnx, inputs.tflite, *quantized])
    labels = read_labels(inputs.prepared)
    train, valid, test = (
        read_split(inputs.prepared / f"{name}.parquet", labels) for name in ("train", "valid", "test")
    )
    check_calibration(artifacts, train)
    return evaluate_artifacts(params.evaluate, artifacts, test, valid, outputs.results, outputs.plots)


if __name__ == "__main__":
    run_stage(evaluate)

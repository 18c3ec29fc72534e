"""Upsert the MLflow run of this state of the pipeline."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import Params
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    report: Path = Path("report")
    evaluated: Path = Path("results/evaluate")
    benchmarked: Path = Path("results/benchmark")
    classifier: Path = Path("models/classifier")
    onnx: Path = Path("models/onnx")
    tflite: Path = Path("models/tflite")
    quantized: Path = Path("models/quantized")


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    published: Path = Path("results/publish")


def publish(params: Params, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Write the parent run's id and links; publishing the same state twice changes nothing."""
    from pocketbert.tracking import publish_pipeline

    quantized = [inputs.quantized / variant for variant in params.quantize.recipes]
    folders = [inputs.classifier, inputs.onnx, inputs.tflite, *quantized]
    return publish_pipeline(params, inputs.report, folders, outputs.published, inputs.benchmarked)


if __name__ == "__main__":
    run_stage(publish)

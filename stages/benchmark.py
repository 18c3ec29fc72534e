"""Measure latency, memory and size of every artifact on one device."""

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

    results: Path = Path("results/benchmark/{device}")


def benchmark(params: Params, inputs: Inputs, outputs: Outputs, device: str) -> Metrics:
    """Write a row an artifact and the raw latencies; return the headline figures."""
    from pocketbert.artifacts import read_artifacts
    from pocketbert.data.dataset import read_labels, read_split
    from pocketbert.devices.benchmark import benchmark_artifacts

    quantized = [inputs.quantized / variant for variant in params.quantize.recipes]
    artifacts = read_artifacts([inputs.teacher, inputs.classifier, inputs.onnx, inputs.tflite, *quantized])
    split = read_split(inputs.prepared / "test.parquet", read_labels(inputs.prepared))
    return benchmark_artifacts(params.benchmark, device, artifacts, split, outputs.results)


if __name__ == "__main__":
    run_stage(benchmark)

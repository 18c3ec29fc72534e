"""Build one quantized artifact of the format x recipe matrix."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import QuantizeParams
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    onnx: Path = Path("models/onnx")
    tflite: Path = Path("models/tflite")
    prepared: Path = Path("data/prepared")
    validated: Path = Path("results/validate")


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    model: Path = Path("models/quantized/{variant}")
    study: Path = Path("results/sensitivity/{variant}.json")


def quantize(params: QuantizeParams, inputs: Inputs, outputs: Outputs, variant: str) -> Metrics:
    """Write the quantized artifact named `variant` in params.yaml; return its size and ratio."""
    from pocketbert.data.dataset import read_labels, read_split
    from pocketbert.quantize.run import quantize_artifact

    labels = read_labels(inputs.prepared)
    train, valid = (read_split(inputs.prepared / f"{split}.parquet", labels) for split in ("train", "valid"))
    sources = {"onnx": inputs.onnx, "tflite": inputs.tflite}
    return quantize_artifact(params, variant, sources, train, outputs.model, valid, outputs.study)


if __name__ == "__main__":
    run_stage(quantize)

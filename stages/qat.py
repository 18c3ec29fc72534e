"""Train the classifier under fake quantization, or pass it through where that is switched off."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import QatParams
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    finetuned: Path = Path("models/finetuned")
    soft: Path = Path("data/soft")
    prepared: Path = Path("data/prepared")
    augmented: Path = Path("data/augmented")


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    classifier: Path = Path("models/classifier")
    plots: Path = Path("plots/qat")


def qat(params: QatParams, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Write the classifier, in plain float either way, and its training curve; return the validation metrics."""
    if not params.enabled:
        return _pass_through(inputs, outputs)
    from pocketbert.data.dataset import read_labels, read_split
    from pocketbert.training.qat import train_quantized
    from pocketbert.training.soft_labels import read_soft_labels

    labels = read_labels(inputs.prepared)
    train = read_split(inputs.augmented / "train.parquet", labels)
    valid = read_split(inputs.prepared / "valid.parquet", labels)
    soft = read_soft_labels(inputs.soft, train.texts)
    return train_quantized(params, labels, inputs.finetuned, soft, train, valid, outputs.classifier, outputs.plots)


def _pass_through(inputs: Inputs, outputs: Outputs) -> Metrics:
    import shutil

    from pocketbert.training.loop.curves import write_curves

    shutil.copytree(inputs.finetuned, outputs.classifier)
    write_curves([], outputs.plots)
    return {"enabled": False}


if __name__ == "__main__":
    run_stage(qat)

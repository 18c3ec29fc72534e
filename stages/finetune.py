"""Tune the student's classifier head on the hard labels."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import FinetuneParams
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    student: Path = Path("models/student")
    prepared: Path = Path("data/prepared")
    augmented: Path = Path("data/augmented")


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    finetuned: Path = Path("models/finetuned")
    plots: Path = Path("plots/finetune")


def finetune(params: FinetuneParams, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Write the classifier, proven equal after reload; return the validation metrics."""
    from pocketbert.data.dataset import read_labels, read_split
    from pocketbert.training.finetune import finetune_head

    labels = read_labels(inputs.prepared)
    train = read_split(inputs.augmented / "train.parquet", labels)
    valid = read_split(inputs.prepared / "valid.parquet", labels)
    return finetune_head(params, labels, inputs.student, train, valid, outputs.finetuned, outputs.plots)


if __name__ == "__main__":
    run_stage(finetune)

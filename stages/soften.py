"""Compute the teacher's logits over the training text, once."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import SoftenParams
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    teacher: Path = Path("models/teacher")
    prepared: Path = Path("data/prepared")
    augmented: Path = Path("data/augmented")


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    soft: Path = Path("data/soft")


def soften(params: SoftenParams, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Write the texts' digest and the logits, memory-mappable; return their counts and the teacher's entropy."""
    from pocketbert.data.dataset import read_labels, read_split
    from pocketbert.training.soften import soften_texts

    train = read_split(inputs.augmented / "train.parquet", read_labels(inputs.prepared))
    return soften_texts(params, inputs.teacher, train.texts, outputs.soft)


if __name__ == "__main__":
    run_stage(soften)

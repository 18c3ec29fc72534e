"""Train a student on the teacher's logits."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import DistillParams
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    teacher: Path = Path("models/teacher")
    soft: Path = Path("data/soft")
    prepared: Path = Path("data/prepared")
    augmented: Path = Path("data/augmented")


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    student: Path = Path("models/student")
    plots: Path = Path("plots/distill")


def distill(params: DistillParams, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Write the student as an artifact folder and its training curve; return the validation metrics."""
    from pocketbert.data.dataset import read_labels, read_split
    from pocketbert.training.distill import distill_student
    from pocketbert.training.soft_labels import read_soft_labels

    labels = read_labels(inputs.prepared)
    train = read_split(inputs.augmented / "train.parquet", labels)
    valid = read_split(inputs.prepared / "valid.parquet", labels)
    soft = read_soft_labels(inputs.soft, train.texts)
    return distill_student(params, labels, inputs.teacher, soft, train, valid, outputs.student, outputs.plots)


if __name__ == "__main__":
    run_stage(distill)

"""Fine-tune the teacher, or evaluate one that is already fine-tuned."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import TeachParams
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    prepared: Path = Path("data/prepared")
    augmented: Path = Path("data/augmented")


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    teacher: Path = Path("models/teacher")
    plots: Path = Path("plots/teach")


def teach(params: TeachParams, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Write the teacher as an artifact folder and its training curve; return the validation metrics."""
    from pocketbert.data.dataset import read_labels, read_split
    from pocketbert.training.teach import teach_classifier

    labels = read_labels(inputs.prepared)
    train = read_split(inputs.augmented / "train.parquet", labels)
    valid = read_split(inputs.prepared / "valid.parquet", labels)
    return teach_classifier(params, labels, train, valid, outputs.teacher, outputs.plots)


if __name__ == "__main__":
    run_stage(teach)

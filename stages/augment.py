"""Add training rows made from existing ones."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import AugmentParams
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    prepared: Path = Path("data/prepared")


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    augmented: Path = Path("data/augmented")


def augment(params: AugmentParams, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Write the training split, original rows first, with the augmented ones behind them."""
    from pocketbert.data.augment import augment_split
    from pocketbert.data.dataset import read_labels, read_split, write_split

    train = read_split(inputs.prepared / "train.parquet", read_labels(inputs.prepared))
    augmented = augment_split(train, params)
    outputs.augmented.mkdir()
    write_split(augmented, outputs.augmented / "train.parquet")
    return {"rows_before": len(train), "rows_after": len(augmented)}


if __name__ == "__main__":
    run_stage(augment)

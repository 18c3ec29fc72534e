"""Read, clean and split the labelled text."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import PrepareParams
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    prepared: Path = Path("data/prepared")


def prepare(params: PrepareParams, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Write train, valid and test splits, labels.json and report.json; return the counts."""
    from pocketbert.data.prepare import prepare_dataset

    return prepare_dataset(params, outputs.prepared)


if __name__ == "__main__":
    run_stage(prepare)

"""Parameters of the data stages."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pocketbert.params.section import Fraction, Section, Seed


class HubDataset(Section):
    """A Hugging Face hub data set, used in place of `prepare.path`."""

    name: str
    config: str | None = None
    revision: str | None = None


class PrepareParams(Section):
    """Where the labelled text comes from and how it is split."""

    path: Path = Path("data/raw/commodities.csv")
    hub: HubDataset | None = None
    text_column: str | None = None
    label_column: str | None = None
    # Set (for instance "|") where one row may carry several labels; the task is then multi-label.
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    valid_fraction: Annotated[float, Field(strict=True, gt=0.0, lt=0.5)] = 0.15
    test_fraction: Annotated[float, Field(strict=True, gt=0.0, lt=0.5)] = 0.15
    seed: Seed = 13


class AugmentParams(Section):
    """Extra training rows made from existing ones; `factor` 0 switches augmentation off."""

    factor: Annotated[int, Field(strict=True, ge=0, le=20)] = 0
    synonym_probability: Fraction = 0.1
    deletion_probability: Annotated[float, Field(strict=True, ge=0.0, lt=1.0)] = 0.1
    # Folder of NLTK data or of a WordNet dictionary; found by itself when null.
    wordnet: Path | None = None
    seed: Seed = 13

from dataclasses import dataclass
from pathlib import Path

import pytest

from pocketbert.data.dataset import Split
from pocketbert.params import SoftenParams, TeachParams
from pocketbert.stage import Metrics
from pocketbert.training.soften import soften_texts
from pocketbert.training.teach import teach_classifier
from tests.training.toy import LABELS, save_checkpoint, toy_split

# A learning rate that lets three layers learn the toy task in a few epochs.
FAST = {"batch_size": 16, "max_length": 32, "learning_rate": 2e-3, "head_learning_rate": 1e-2}


@dataclass(frozen=True)
class Taught:
    checkpoint: Path
    teacher: Path
    soft: Path
    plots: Path
    metrics: Metrics
    train: Split
    valid: Split


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """A trained toy teacher and its soft labels."""
    root = tmp_path_factory.mktemp("taught")
    checkpoint = save_checkpoint(root / "checkpoint")
    train, valid = toy_split(480, seed=1), toy_split(80, seed=2)
    params = TeachParams(checkpoint=str(checkpoint), epochs=4, **FAST)
    metrics = teach_classifier(params, LABELS, train, valid, root / "teacher", root / "plots")
    soften_texts(SoftenParams(), root / "teacher", train.texts, root / "soft")
    return Taught(checkpoint, root / "teacher", root / "soft", root / "plots", metrics, train, valid)

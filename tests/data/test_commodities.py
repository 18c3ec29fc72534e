"""The default data set: the shipped file is what its generator writes, and is as hard as intended."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pocketbert.data.dataset import SPLITS, Split, read_labels, read_split
from pocketbert.data.prepare import prepare_dataset
from pocketbert.params import PrepareParams

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "data" / "raw" / "commodities.csv"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Split]]:
    folder = tmp_path_factory.mktemp("commodities") / "prepared"
    prepare_dataset(PrepareParams(path=SHIPPED), folder)
    labels = read_labels(folder)
    return folder, {split: read_split(folder / f"{split}.parquet", labels) for split in SPLITS}


def test_the_generator_writes_the_shipped_files(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "data" / "generate_commodities.py"), str(tmp_path)], check=True)
    for name in ("commodities.csv", "tiny.csv"):
        assert (tmp_path / name).read_bytes() == (SHIPPED.parent / name).read_bytes()


def test_size_and_classes(prepared: tuple[Path, dict[str, Split]]) -> None:
    folder, splits = prepared
    assert len(read_labels(folder)) == 28
    assert sum(len(split) for split in splits.values()) == 4500
    assert SHIPPED.stat().st_size < 500_000
    counts = Counter(splits["train"].targets.tolist())
    assert min(counts.values()) >= 60


def test_a_bag_of_words_is_not_enough(prepared: tuple[Path, dict[str, Split]]) -> None:
    """The fine-tuned teacher's accuracy is in docs/data.md; a linear model on TF-IDF must stay well below it."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    _, splits = prepared
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, max_iter=500))
    model.fit(splits["train"].texts, splits["train"].targets)
    assert 0.7 < model.score(splits["test"].texts, splits["test"].targets) < 0.86

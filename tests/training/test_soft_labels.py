import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import DataError, TrainingError
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.params import SoftenParams
from pocketbert.training.soft_labels import read_soft_labels, text_digest
from pocketbert.training.soften import read_unlabelled, soften_texts
from tests.training.conftest import Taught

TEXTS = ["red alpha", "the moon and the sun beta and red", "gamma", "delta delta dog"]


def test_logits_are_the_teacher_s_and_mapped(taught: Taught, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("\ufeffsun beta\n\n  rain gamma \n", encoding="utf-8")
    metrics = soften_texts(SoftenParams(unlabelled=tmp_path / "more.txt"), taught.teacher, TEXTS, tmp_path / "soft")
    soft = read_soft_labels(tmp_path / "soft", TEXTS)
    assert isinstance(soft.train, np.memmap)
    assert soft.train.dtype == np.float16
    assert soft.unlabelled_texts == ["sun beta", "rain gamma"]
    model, encoder = load_classifier(taught.teacher), TextEncoder(taught.teacher)
    for texts, stored in ((TEXTS, soft.train), (soft.unlabelled_texts, soft.unlabelled)):
        batch = {name: torch.from_numpy(array) for name, array in encoder.encode(texts, 32).items()}
        expected = model(**batch).logits.detach().numpy()
        assert np.abs(expected - stored).max() < 1e-2
    assert metrics["unlabelled_rows"] == 2
    assert 0.0 < float(str(metrics["entropy_mean_nats"])) < math.log(4)


@pytest.mark.parametrize("texts", [TEXTS[:-1], [*TEXTS[:-1], "delta"], TEXTS[::-1], [*TEXTS, "more"]])
def test_soft_labels_of_other_texts_are_refused(taught: Taught, tmp_path: Path, texts: list[str]) -> None:
    soften_texts(SoftenParams(), taught.teacher, TEXTS, tmp_path)
    with pytest.raises(TrainingError, match="other training texts"):
        read_soft_labels(tmp_path, texts)


def test_cut_off_soft_labels_are_refused(taught: Taught, tmp_path: Path) -> None:
    soften_texts(SoftenParams(), taught.teacher, TEXTS, tmp_path)
    path = tmp_path / "train.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(TrainingError, match="dvc repro soften"):
        read_soft_labels(tmp_path, TEXTS)


def test_digest_tells_where_one_text_ends() -> None:
    assert text_digest(["ab", "c"]) != text_digest(["a", "bc"])
    assert text_digest([]) != text_digest([""])


@pytest.mark.parametrize(
    ("name", "content"),
    [("more.csv", "id,text\n1,sun\n2,rain\n"), ("more.jsonl", '{"text": "sun"}\n{"text": "rain"}\n')],
)
def test_unlabelled_tables(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_unlabelled(tmp_path / name) == ["sun", "rain"]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00bad"])
def test_unlabelled_file_without_text_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"more\.txt"):
        read_unlabelled(tmp_path / "more.txt")
    with pytest.raises(DataError, match=r"nowhere\.txt"):
        read_unlabelled(tmp_path / "nowhere.txt")

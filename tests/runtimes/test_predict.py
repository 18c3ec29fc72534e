import shutil
from pathlib import Path

import numpy as np
import pytest

from pocketbert.artifacts import Artifact
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import CheckpointError, DataError
from pocketbert.runtimes.engines import open_runtime
from pocketbert.runtimes.predict import TextClassifier
from tests.runtimes.conftest import copy_artifact


def test_every_artifact_classifies(every_artifact: list[Artifact]) -> None:
    for artifact in every_artifact:
        with TextClassifier(artifact.folder) as classifier:
            found = list(classifier.classify(["a small apple", "the old hammer", "buy cheap cat", "red " * 90]))
        assert [prediction.labels[0][0] for prediction in found[:3]] == ["fruit", "tool", "pet"], artifact.name
        assert all(0 < prediction.labels[0][1] <= 1 and prediction.run_ms > 0 for prediction in found)


def test_top_k_is_ordered_and_sums_to_one_over_all_classes(student: Artifact) -> None:
    with TextClassifier(student.folder) as classifier:
        (two,) = classifier.classify(["new pear"], top_k=2)
        (more,) = classifier.classify(["new pear"], top_k=99)
    assert more.labels[:2] == two.labels
    probability = [p for _, p in more.labels]
    assert probability == sorted(probability, reverse=True)
    assert sum(probability) == pytest.approx(1.0)


def test_multi_label_gives_every_label_over_one_half(student: Artifact, tmp_path: Path) -> None:
    several = copy_artifact(student, tmp_path / "several", "multi_label")
    texts = ["apple", "hammer cat", "red", "the old wrench"]
    with TextClassifier(several.folder) as classifier:
        found = [{name for name, _ in prediction.labels} for prediction in classifier.classify(texts)]
        names = np.array(classifier.labels.names)
    logits = open_runtime(student).run(TextEncoder(student.folder).encode(texts, 64))
    assert found == [set(names[row > 0]) for row in logits]


def test_a_text_that_is_not_unicode_is_refused(student: Artifact) -> None:
    with TextClassifier(student.folder) as classifier, pytest.raises(DataError, match="is not valid UTF-8"):
        list(classifier.classify([b"caf\xe9".decode("utf-8", "surrogateescape")]))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", "{", "tokenizer.json cannot be read"),
        ("tokenizer_config.json", "{", "tokenizer_config.json cannot be read"),
        ("tokenizer_config.json", None, "tokenizer_config.json cannot be read"),
        ("labels.json", '{"labels": ["a"], "problem_type": "single_label"}', "has 1 labels, but its model tells"),
    ],
)
def test_a_file_that_is_damaged_or_of_another_model_is_named(
    name: str, content: str | None, said: str, student: Artifact, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(student.folder, folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=said):
        TextClassifier(folder)

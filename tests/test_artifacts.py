import hashlib
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketbert.artifacts import Artifact, ArtifactCard, read_artifact, read_artifacts
from pocketbert.errors import CheckpointError

NAME = st.text(min_size=1, max_size=12)
OPTION = st.booleans() | st.integers(-(2**40), 2**40) | NAME | st.lists(NAME, max_size=2)
CARDS = st.builds(
    ArtifactCard,
    name=NAME,
    format=st.sampled_from(["torch", "onnx", "tflite"]),
    recipe=NAME,
    options=st.dictionaries(NAME, OPTION, max_size=3),
    precision=NAME,
    model_file=st.just("model.bin"),
    sequence_length=st.none() | st.integers(2, 512),
    max_length=st.integers(2, 512),
)


def write(folder: Path, card: ArtifactCard, weights: bytes = b"w") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "artifact.json").write_text(card.model_dump_json(), encoding="utf-8")
    (folder / card.model_file).write_bytes(weights)
    return folder


@given(card=CARDS, weights=st.binary(max_size=50))
def test_a_card_survives_its_file(tmp_path_factory: pytest.TempPathFactory, card: ArtifactCard, weights: bytes) -> None:
    artifact = read_artifact(write(tmp_path_factory.mktemp("artifact"), card, weights))
    assert artifact.card == card
    assert artifact.name == card.name
    assert artifact.size_bytes == len(weights)
    assert artifact.md5() == hashlib.md5(weights, usedforsecurity=False).hexdigest()


def card(name: str) -> ArtifactCard:
    return ArtifactCard(name=name, format="onnx", model_file="model.bin", max_length=8)


def test_order_is_kept(tmp_path: Path) -> None:
    folders = [write(tmp_path / name, card(name)) for name in ("b", "a", "c")]
    assert [artifact.name for artifact in read_artifacts(folders)] == ["b", "a", "c"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "a"}', '{"name": "a", "unknown": 1}'])
def test_a_folder_that_is_no_artifact(tmp_path: Path, text: str) -> None:
    (tmp_path / "artifact.json").write_text(text)
    with pytest.raises(CheckpointError, match="not a pocketbert artifact") as raised:
        read_artifact(tmp_path)
    assert "\n" not in str(raised.value)


def test_missing_card_and_missing_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a pocketbert artifact"):
        read_artifact(tmp_path)
    write(tmp_path, card("a"))
    (tmp_path / "model.bin").unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        read_artifact(tmp_path)


def test_cards_cannot_be_changed(tmp_path: Path) -> None:
    artifact = cast(Artifact, read_artifact(write(tmp_path, card("a"))))
    with pytest.raises(ValueError, match="frozen"):
        artifact.card.name = "b"  # type: ignore[misc]

"""Augmentation, on a WordNet dictionary of a few words in the real file format, and on the system's where it is."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketbert.data import wordnet
from pocketbert.data.augment import augment_split
from pocketbert.data.dataset import Split
from pocketbert.errors import DataError
from pocketbert.params import AugmentParams

TRAIN = Split(["buy a cheap sofa now", "one cheap couch", "手机壳 红色", "sofa"], np.array([2, 0, 1, 2]))
SYNSETS = {
    "noun": [["sofa", "couch", "lounge"]],
    "adj": [["cheap", "inexpensive"]],
    "verb": [["buy", "purchase"]],
    "adv": [],
}
LETTERS = {"noun": "n", "adj": "a", "verb": "v", "adv": "r"}


def write_dictionary(folder: Path) -> Path:
    """A WordNet dictionary (wndb(5WN)) of SYNSETS, without lexnames and index.sense, as Debian ships it."""
    folder.mkdir(parents=True)
    header = "  1 This is WordNet 3.0 Copyright\n"
    for name, synsets in SYNSETS.items():
        data, index = header, []
        for words in synsets:
            offset, letter = len(data), LETTERS[name]
            listed = " ".join(f"{word} 0" for word in words)
            frames = " 00" if name == "verb" else ""
            data += f"{offset:08d} 06 {letter} {len(words):02x} {listed} 000{frames} | made for a test  \n"
            index += [f"{word} {letter} 1 0 1 0 {offset:08d}  \n" for word in words]
        (folder / f"data.{name}").write_text(data)
        (folder / f"index.{name}").write_text(header + "".join(sorted(index)))
        (folder / "cntlist.rev").write_text("abacus%1:06:00:: 1 1\nzebra%1:05:00:: 1 1\n")
        (folder / f"{name}.exc").write_text("sofas sofa\n" if name == "noun" else "")
    return folder


@pytest.fixture(scope="module")
def dictionary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dictionary(tmp_path_factory.mktemp("wordnet") / "dict")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without WordNet."""
    monkeypatch.setattr(wordnet.nltk.data, "path", [])
    monkeypatch.setattr(wordnet, "SYSTEM_DICTIONARY", tmp_path / "none")


def test_words_are_replaced_by_synonyms_and_labels_carried(dictionary: Path) -> None:
    params = AugmentParams(factor=3, synonym_probability=1.0, deletion_probability=0.0, wordnet=dictionary)
    augmented = augment_split(TRAIN, params)
    assert augmented.texts[:4] == TRAIN.texts
    np.testing.assert_array_equal(augmented.targets, np.tile(TRAIN.targets, 4))
    sofas = {"couch", "lounge"}
    assert {augmented.texts[i] for i in (4, 8, 12)} <= {f"purchase a inexpensive {s} now" for s in sofas}
    assert {augmented.texts[i] for i in (7, 11, 15)} <= sofas
    assert augmented.texts[6] == "手机壳 红色"


@pytest.mark.parametrize("layout", ["corpora/wordnet", "dict"])
def test_wordnet_is_found_in_nltk_data_and_in_a_dictionary_s_parent(tmp_path: Path, layout: str) -> None:
    write_dictionary(tmp_path / layout)
    assert wordnet.load_synonyms(tmp_path).of("sofa") == ("couch", "lounge")
    assert wordnet.load_synonyms(tmp_path).of("sofas") == ("couch", "lounge")


def test_wordnet_is_found_by_nltk_s_path_and_in_the_system_s_dictionary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nowhere: None
) -> None:
    write_dictionary(tmp_path / "system")
    monkeypatch.setattr(wordnet, "SYSTEM_DICTIONARY", tmp_path / "system")
    assert wordnet.load_synonyms().of("cheap") == ("inexpensive",)
    write_dictionary(tmp_path / "nltk" / "corpora" / "wordnet")
    monkeypatch.setattr(wordnet.nltk.data, "path", [str(tmp_path / "nltk")])
    assert wordnet.load_synonyms().source.startswith(str(tmp_path / "nltk"))


@pytest.mark.skipif(
    not Path("/usr/share/wordnet/data.noun").is_file() and "CI" not in os.environ,
    reason="package wordnet-base is not installed",
)
def test_the_system_s_dictionary() -> None:
    synonyms = wordnet.load_synonyms(Path("/usr/share/wordnet"))
    assert (
        "couch" in synonyms.of("sofa")
        and "concealment" not in synonyms.of("cover")
        and "phone" not in synonyms.of("phones")
    )
    assert synonyms.of("in") == synonyms.of("with") == synonyms.of("zzzz") == ()


def test_absent_wordnet_is_an_error_that_names_the_fix(nowhere: None, tmp_path: Path) -> None:
    for params in (AugmentParams(factor=1), AugmentParams(factor=1, wordnet=tmp_path)):
        with pytest.raises(DataError, match=r"needs WordNet.*apt-get install wordnet-base.*augment\.wordnet"):
            augment_split(TRAIN, params)


def test_what_needs_no_wordnet_runs_without_it(nowhere: None) -> None:
    assert augment_split(TRAIN, AugmentParams(factor=0)) is TRAIN
    assert len(augment_split(TRAIN, AugmentParams(factor=1, synonym_probability=0.0))) == 8


def test_techniques_that_could_do_nothing_are_refused(dictionary: Path) -> None:
    with pytest.raises(DataError, match="both probabilities are 0"):
        augment_split(TRAIN, AugmentParams(factor=1, synonym_probability=0.0, deletion_probability=0.0))
    chinese = Split(["手机壳 红色"], np.array([0]))
    with pytest.raises(DataError, match="no word of the training texts has a synonym"):
        augment_split(chinese, AugmentParams(factor=1, wordnet=dictionary))


def test_a_broken_dictionary_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text("")
    with pytest.raises(DataError, match="cannot be read") as caught:
        wordnet.load_synonyms(tmp_path)
    assert "\n" not in str(caught.value)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.text(min_size=1, max_size=30).map(lambda t: " ".join(t.split())).filter(bool), min_size=1, max_size=8),
    st.floats(0.01, 0.99),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
)
def test_deletion_only_deletes_never_empties_and_repeats_with_its_seed(
    texts: list[str], probability: float, factor: int, seed: int
) -> None:
    train = Split(texts, np.eye(len(texts), dtype=np.float32))
    params = AugmentParams(factor=factor, synonym_probability=0.0, deletion_probability=probability, seed=seed)
    augmented = augment_split(train, params)
    assert augmented.texts[: len(texts)] == texts
    assert augmented.targets.shape == (len(texts) * (factor + 1), len(texts))
    assert augmented.targets.dtype == np.float32
    for i, text in enumerate(augmented.texts):
        assert text.strip()
        rest = iter(texts[i % len(texts)])
        assert all(char in rest for char in text), "a copy must be a subsequence of its row"
    assert augment_split(train, params).texts == augmented.texts


def test_words_are_deleted_whole_and_chinese_by_character() -> None:
    train = Split(["alpha beta gamma delta", "透明防摔手机壳"], np.array([0, 1]))
    copies = augment_split(train, AugmentParams(factor=20, synonym_probability=0.0, deletion_probability=0.4)).texts[2:]
    assert all(set(text.split()) <= {"alpha", "beta", "gamma", "delta"} for text in copies[::2])
    lengths = {len(text) for text in copies[1::2]}
    assert len(lengths) > 3 and max(lengths) <= 7

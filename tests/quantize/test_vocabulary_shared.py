"""Tokens that share a word embedding: fewer rows, the same tokenizer, the same model on the tokens of the text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.data.dataset import Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ParamsError
from pocketbert.inspection.inspect import inspect_file
from pocketbert.params import QuantizeParams, parse_params
from pocketbert.quantize.run import quantize_artifact
from pocketbert.quantize.vocabulary import shared_source
from pocketbert.quantize.vocabulary_shared import SeenTokens, rows_of_tokens, seen_tokens
from pocketbert.quantize.vocabulary_tokens import frequent_tokens
from pocketbert.runtimes.predict import TextClassifier
from tests.export.trained import write_tokenizer
from tests.quantize.test_vocabulary import DROPPED, logits

SPECIAL = 5


@pytest.fixture(scope="module")
def train(toy_split: Split) -> Split:
    """The toy rows that lack two of the words."""
    rows = [i for i, text in enumerate(toy_split.texts) if not set(DROPPED) & set(text.split())]
    return Split([toy_split.texts[i] for i in rows], toy_split.targets[rows])


def test_each_token_has_its_own_row_or_that_of_the_nearest_word() -> None:
    table = np.array([[9, 9], [1, 0], [0, 1], [2, 0.1], [0.1, 3], [-1, 0]], np.float32)
    seen = SeenTokens(kept=np.array([0, 1, 2]), lenders=np.array([1, 2]))
    assert rows_of_tokens(table, seen).tolist() == [0, 1, 2, 1, 2, 2]


def test_special_tokens_keep_their_rows_and_lend_none(tflite: Artifact, train: Split) -> None:
    seen = seen_tokens(tflite.folder, train.texts)
    assert len(seen.kept) == len(seen.lenders) + SPECIAL
    assert not set(range(SPECIAL)) & set(seen.lenders.tolist())


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_the_source_with_two_words_that_borrow(
    name: str, request: pytest.FixtureRequest, train: Split, toy_split: Split
) -> None:
    source: Artifact = request.getfixturevalue(name)
    with shared_source(source, train, toy_split) as (shared, record):
        size = TextEncoder(source.folder).vocabulary_size
        used = {word for text in train.texts for word in text.split()}
        assert record["kept"] == len(used) + SPECIAL
        assert record["kept"] + record["dropped"] == size
        assert record["proof"] == {"rows": 64, "held_out_rows": 64, "max_abs_diff": 0.0}
        other = sum(bool(set(DROPPED) & set(text.split())) for text in toy_split.texts)
        assert record["valid"]["rows"] - record["valid"]["of_equal_tokens"] == record["valid"]["run"] == other
        assert (shared.folder / "tokenizer.json").read_bytes() == (source.folder / "tokenizer.json").read_bytes()
        np.testing.assert_array_equal(logits(source, train.texts), logits(shared, train.texts))
        # A word that borrows a row is read as that word.
        dropped = [text for text in toy_split.texts if set(DROPPED) & set(text.split())]
        assert not np.array_equal(logits(source, dropped), logits(shared, dropped))
        inspection = inspect_file(shared.folder)
        assert inspection.fine
        by_index = {lookup.index or "": lookup for lookup in inspection.lookups}
        assert by_index[next(index for index in by_index if "input_ids" in index)].rows in (size, record["kept"])


@pytest.mark.parametrize(
    "recipe",
    [
        {"format": "tflite", "recipe": "dynamic_wi4_afp32"},
        {"format": "tflite", "recipe": "static_wi8_ai8"},
        {"format": "onnx", "recipe": "dynamic_int8"},
        {"format": "onnx", "recipe": "fp16"},
    ],
)
def test_a_recipe_on_shared_rows_is_the_recipe(
    recipe: dict[str, Any], onnx: Artifact, tflite: Artifact, train: Split, toy_split: Split, tmp_path: Path
) -> None:
    built, sources = {}, {"onnx": onnx.folder, "tflite": tflite.folder}
    for vocabulary in ("full", "shared"):
        params = {"calibration": {"rows": 12}, "recipes": {vocabulary: recipe | {"vocabulary": vocabulary}}}
        quantize_artifact(
            QuantizeParams.model_validate(params), vocabulary, sources, train, tmp_path / vocabulary, toy_split
        )
        built[vocabulary] = read_artifact(tmp_path / vocabulary)
    assert json.loads((tmp_path / "shared/recipe.json").read_text())["vocabulary"]["dropped"] > 0
    assert built["shared"].card.vocabulary == "shared"
    np.testing.assert_array_equal(*(logits(built[v], train.texts) for v in ("full", "shared")))
    with TextClassifier(tmp_path / "shared") as classifier:
        assert [p.labels[0][0] for p in classifier.classify(["a cheap apple", "the old saw"])] == ["fruit", "tool"]


def test_any_tokenizer_s_words_are_told_from_what_it_puts_around_them(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    seen = seen_tokens(tmp_path, ["w3 w1", "w1 unheard"])
    # [PAD], [CLS] and [SEP] keep their rows; the unknown token is a word of this text.
    assert seen.kept.tolist() == [0, 1, 2, 3, 6, 8]
    assert seen.lenders.tolist() == [1, 6, 8]
    assert frequent_tokens(tmp_path)[:3] == [0, 1, 2]


def test_rows_are_filled_up_with_frequent_words(tflite: Artifact, train: Split) -> None:
    alone = seen_tokens(tflite.folder, train.texts)
    filled = seen_tokens(tflite.folder, train.texts, len(alone.kept) + 1)
    assert len(filled.kept) == len(alone.kept) + 1
    assert set(alone.kept.tolist()) < set(filled.kept.tolist())
    assert len(filled.lenders) == len(alone.lenders) + 1
    with pytest.raises(ParamsError, match=rf"3 rows are asked for, but the training text has {len(alone.kept)}"):
        seen_tokens(tflite.folder, train.texts, 3)
    with pytest.raises(ParamsError, match="only `vocabulary: shared` reads"):
        parse_params(
            {"quantize": {"recipes": {"x": {"format": "onnx", "recipe": "fp16", "vocabulary_rows": 9}}}}, Path("p.yaml")
        )

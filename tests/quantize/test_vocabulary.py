"""Trimmed vocabularies of whole artifacts: other ids, the same model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_format
import pytest
from onnx import numpy_helper

from pocketbert.artifacts import Artifact, ArtifactCard, read_artifact, write_artifact
from pocketbert.comparison.compare import compare_files
from pocketbert.data.dataset import LabelSet, Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ExportError, ProofError
from pocketbert.inspection.inspect import inspect_file
from pocketbert.params import QuantizeParams
from pocketbert.quantize.run import quantize_artifact
from pocketbert.quantize.vocabulary import prove_equal_logits, trimmed_source
from pocketbert.quantize.vocabulary_table import trim_table
from pocketbert.runtimes.engines import open_runtime
from pocketbert.runtimes.predict import TextClassifier
from tests.export.trained import MAIN_FAMILIES, exported
from tests.quantize.test_vocabulary_tokens import byte_level
from tests.runtimes.conftest import copy_artifact

DROPPED = ("parrot", "cheap")


@pytest.fixture(scope="module")
def train(toy_split: Split) -> Split:
    """The toy rows that lack two of the words."""
    rows = [i for i, text in enumerate(toy_split.texts) if not set(DROPPED) & set(text.split())]
    return Split([toy_split.texts[i] for i in rows], toy_split.targets[rows])


def logits(artifact: Artifact, texts: list[str]) -> Any:
    return open_runtime(artifact).run(TextEncoder(artifact.folder).encode(texts, 16, pad_to=16))


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_the_source_without_two_words(
    name: str, request: pytest.FixtureRequest, train: Split, toy_split: Split
) -> None:
    source: Artifact = request.getfixturevalue(name)
    with trimmed_source(source, train, toy_split) as (trimmed, record):
        vocabulary = (source.folder / "vocab.txt").read_text().split()
        kept = [i for i, token in enumerate(vocabulary) if token not in DROPPED]
        assert (trimmed.folder / "vocab.txt").read_text().split() == [vocabulary[i] for i in kept]
        assert (record["kept"], record["dropped"]) == (len(kept), 2)
        # Two rows of 32 floats, and what a flatbuffer loses when it is packed again.
        assert record["source_bytes_saved"] == source.size_bytes - trimmed.size_bytes
        assert 0 <= record["source_bytes_saved"] - 2 * 32 * 4 < 2048
        assert record["proof"]["max_abs_diff"] == 0.0
        assert record["proof"]["rows"] == 64
        other = sum(bool(set(DROPPED) & set(text.split())) for text in toy_split.texts)
        assert record["valid"]["rows"] - record["valid"]["of_equal_tokens"] == record["valid"]["run"] == other
        full, trim = (
            (logits(artifact, toy_split.texts).argmax(axis=1) == toy_split.targets).mean()
            for artifact in (source, trimmed)
        )
        assert record["valid"]["accuracy_change_points"] == pytest.approx(100 * (trim - full), abs=1e-3)
        np.testing.assert_array_equal(logits(source, train.texts), logits(trimmed, train.texts))
        inspection = inspect_file(trimmed.folder)
        assert inspection.fine
        assert max(lookup.rows for lookup in inspection.lookups if lookup.index) == inspection.vocabulary == len(kept)


@pytest.mark.parametrize(
    "recipe",
    [
        {"format": "tflite", "recipe": "dynamic_wi8_afp32"},
        {"format": "tflite", "recipe": "static_wi8_ai8"},
        {"format": "onnx", "recipe": "fp16"},
    ],
)
def test_a_recipe_on_a_trimmed_vocabulary_is_the_recipe(
    recipe: dict[str, Any], onnx: Artifact, tflite: Artifact, train: Split, toy_split: Split, tmp_path: Path
) -> None:
    built, sources = {}, {"onnx": onnx.folder, "tflite": tflite.folder}
    for vocabulary in ("full", "trimmed"):
        params = QuantizeParams.model_validate(
            {"calibration": {"rows": 12}, "recipes": {vocabulary: recipe | {"vocabulary": vocabulary}}}
        )
        metrics = quantize_artifact(params, vocabulary, sources, train, tmp_path / vocabulary, toy_split)
        assert ("vocabulary" in metrics) == (vocabulary == "trimmed")
        built[vocabulary] = read_artifact(tmp_path / vocabulary)
    record = json.loads((tmp_path / "trimmed/recipe.json").read_text())
    assert record["vocabulary"]["dropped"] == 2
    assert record["source_md5"] == read_artifact(sources[recipe["format"]]).md5()
    assert built["trimmed"].card.vocabulary == "trimmed"
    # A scale a row of the table: the rows that are left are quantized as before.
    full, trimmed = (logits(built[v], train.texts) for v in ("full", "trimmed"))
    np.testing.assert_array_equal(full, trimmed)
    with TextClassifier(tmp_path / "trimmed") as classifier:
        assert [p.labels[0][0] for p in classifier.classify(["a cheap apple", "the old saw"])] == ["fruit", "tool"]


def test_rows_that_were_mixed_up_are_noticed(onnx: Artifact, train: Split, toy_split: Split, tmp_path: Path) -> None:
    with trimmed_source(onnx, train, toy_split) as (trimmed, _):
        faulty = copy_artifact(trimmed, tmp_path / "faulty")
    model = onnx_format.load(faulty.model_path)
    table = max(model.graph.initializer, key=lambda t: t.dims[0] if t.name.endswith("word_embeddings.weight") else 0)
    rows = numpy_helper.to_array(table).copy()
    rows[[7, 8]] = rows[[8, 7]]
    table.CopyFrom(numpy_helper.from_array(rows, table.name))
    onnx_format.save(model, faulty.model_path)
    with pytest.raises(ProofError, match=r"logits of model\.onnx with a smaller vocabulary are .* away"):
        prove_equal_logits(onnx, faulty, train.texts, [])


def test_compare_gives_both_models_the_same_tokens(
    student: Artifact, onnx: Artifact, train: Split, toy_split: Split, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text\n" + "\n".join(toy_split.texts), encoding="utf-8")
    with trimmed_source(onnx, train, toy_split) as (trimmed, _):
        for pair in ((student.folder, trimmed.folder), (trimmed.folder, onnx.folder)):
            comparison = compare_files(*pair, rows, rows=24, layers=True)
            comparison.check(1e-4)
            assert comparison.layers
            assert comparison.layers.first_divergence is None
            assert any("each under its own ids" in line for line in comparison.said)


def test_a_table_that_something_else_reads_stays_whole(onnx: Artifact, tmp_path: Path) -> None:
    model = onnx_format.load(onnx.model_path)
    (name,) = (t.name for t in model.graph.initializer if t.name.endswith("word_embeddings.weight"))
    model.graph.node.append(onnx_format.helper.make_node("Transpose", [name], ["decoder"]))
    onnx_format.save(model, tmp_path / "masked_lm.onnx")
    with pytest.raises(ExportError, match=r"masked_lm\.onnx: Transpose reads the word embeddings too"):
        trim_table(tmp_path / "masked_lm.onnx", tmp_path / "out.onnx", np.arange(5))
    with pytest.raises(ExportError, match=r"the tokenizer has ids up to 25, the table 25 rows"):
        trim_table(onnx.model_path, tmp_path / "out.onnx", np.arange(26))
    for node in model.graph.node:
        node.input[:] = ["ids" if value == "input_ids" else value for value in node.input]
    onnx_format.save(model, tmp_path / "odd.onnx")
    with pytest.raises(ExportError, match=r"odd\.onnx: no constant tables are indexed by input_ids"):
        trim_table(tmp_path / "odd.onnx", tmp_path / "out.onnx", np.arange(5))


@pytest.mark.parametrize("family", MAIN_FAMILIES)
@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_the_table_of_every_family_is_found(family: str, name: str, tmp_path: Path) -> None:
    artifact = read_artifact(getattr(exported(family), name))
    kept = np.array([0, 1, 2, 3, 4, *range(5, 65, 3)])
    shorter = copy_artifact(artifact, tmp_path / name)
    assert trim_table(artifact.model_path, shorter.model_path, kept) == 65
    ids = np.random.default_rng(0).integers(len(kept), size=(4, 32)).astype(np.int32)
    rows = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    full = open_runtime(artifact).run({**rows, "input_ids": kept[ids].astype(np.int32)})
    np.testing.assert_array_equal(full, open_runtime(shorter).run({**rows, "input_ids": ids}))
    assert np.ptp(full, axis=0).min() > 0


def test_roberta_counts_its_positions_as_before(tmp_path: Path) -> None:
    """Its positions start behind the padding id, 1; ids, table and byte pairs shrink and the logits stay."""
    import torch

    from pocketbert.export.onnx import export_onnx
    from pocketbert.modeling.classifier import PocketBertClassifier, PocketBertConfig
    from pocketbert.params import ExportOnnxParams

    words = ["open", "the", "door", "please", "window", "now", "close", "paid", "card"]
    texts = [" ".join(words[i % 9] for i in range(start, start + 3 + start % 5)) for start in range(24)]
    folder = byte_level(tmp_path / "roberta", [" ".join(words), *texts] * 4, 300)
    encoder = {
        "model_type": "roberta", "vocab_size": TextEncoder(folder).vocabulary_size, "hidden_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 66,
        "type_vocab_size": 1, "pad_token_id": 1, "initializer_range": 0.5,
    }  # fmt: skip
    torch.manual_seed(3)
    PocketBertClassifier(PocketBertConfig(encoder=encoder, num_labels=3)).save_pretrained(folder)
    card = ArtifactCard(name="student", format="torch", model_file="model.safetensors", max_length=64)
    write_artifact(folder, card, LabelSet(("a", "b", "c")), TextEncoder(folder))
    export_onnx(ExportOnnxParams(), folder, tmp_path / "onnx")
    source = read_artifact(tmp_path / "onnx")
    seen = Split([text for text in texts if "window" not in text], np.zeros(24, np.int64))
    with trimmed_source(source, seen, Split(texts, np.zeros(24, np.int64))) as (trimmed, record):
        assert record["dropped"] > 0
        assert TextEncoder(trimmed.folder).pad_id == 1
        np.testing.assert_array_equal(logits(source, seen.texts), logits(trimmed, seen.texts))

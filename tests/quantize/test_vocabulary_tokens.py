"""Trimmed tokenizers: WordPiece and byte-level BPE, made up and real."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ExportError, ParamsError
from pocketbert.quantize.vocabulary_tokens import choose_tokens, same_segmentation, write_tokenizer
from tests.export.trained import write_tokenizer as write_word_level

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = st.one_of(
    st.text("abcdé", min_size=1, max_size=4),
    st.text("abcdé", min_size=1, max_size=3).map("##".__add__),
    st.sampled_from(["中", "##中", "."]),
)
TEXTS = st.lists(st.text("abcdé 中.", max_size=12), min_size=1, max_size=6)


def word_piece(folder: Path, tokens: Iterable[str]) -> Path:
    from transformers import BertTokenizerFast

    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *tokens]), encoding="utf-8")
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def byte_level(folder: Path, texts: list[str], size: int) -> Path:
    """A RoBERTa-style tokenizer: <s> <pad> </s> <unk> come first, so padding has id 1."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special, alphabet = ["<s>", "<pad>", "</s>", "<unk>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}), encoding="utf-8")
    return folder


def trim(source: Path, texts: list[str], target: Path, size: int = 0) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    kept = choose_tokens(source, texts, size)
    target.mkdir(exist_ok=True)
    write_tokenizer(source, kept, target)
    return kept


@settings(max_examples=40, deadline=None)
@given(tokens=st.sets(PIECES, max_size=25), train=TEXTS, other=TEXTS)
def test_any_text_seen_has_the_same_word_pieces(tokens: set[str], train: list[str], other: list[str]) -> None:
    with TemporaryDirectory() as scratch:
        source = word_piece(Path(scratch, "full"), sorted(tokens))
        kept = trim(source, train, Path(scratch, "trimmed"))
        assert same_segmentation(source, Path(scratch, "trimmed"), kept, train).all()
        encoder = TextEncoder(Path(scratch, "trimmed"))
        assert encoder.vocabulary_size == len(kept)
        assert encoder.pad_id == 0
        assert all(index < len(kept) for row in encoder.encode_rows(other, 64) for index in row)


@settings(max_examples=25, deadline=None)
@given(train=TEXTS, other=TEXTS, seed=st.integers(0, 9))
def test_any_text_seen_has_the_same_byte_pairs(train: list[str], other: list[str], seed: int) -> None:
    words = random.Random(seed)
    corpus = ["".join(words.choices("abcdé 中.", k=30)) for _ in range(30)]
    with TemporaryDirectory() as scratch:
        source = byte_level(Path(scratch, "full"), corpus, 340)
        kept = trim(source, train, Path(scratch, "trimmed"))
        encoder = TextEncoder(Path(scratch, "trimmed"))
        assert same_segmentation(source, encoder.folder, kept, train).all()
        assert encoder.pad_id == 1
        # Bytes spell everything: nothing is lost of a text that was never seen.
        tokenizer = Tokenizer.from_file(str(encoder.folder / "tokenizer.json"))
        assert [tokenizer.decode(row.ids) for row in tokenizer.encode_batch(other)] == other


def test_what_is_kept_and_what_is_not(tmp_path: Path) -> None:
    tokens = [
        "[unused1]",
        "a",
        "b",
        "!",
        "中",
        "É",
        "##a",
        "##b",
        "##!",
        "##中",
        "ab",
        "cab",
        "##ca",
        "abba",
        "c",
        "##c",
    ]
    source = word_piece(tmp_path / "full", tokens)
    kept = trim(source, ["ab 中"], tmp_path / "trimmed")
    vocabulary = [*SPECIAL, *tokens]
    # "##中" and "##!" stand for characters that are words of their own; "É" is made "e" before.
    assert [vocabulary[i] for i in kept] == [*SPECIAL, "a", "b", "!", "中", "##a", "##b", "ab", "c", "##c"]
    trimmed = TextEncoder(tmp_path / "trimmed")
    assert (tmp_path / "trimmed/vocab.txt").read_text().split() == [vocabulary[i] for i in kept]
    assert [vocabulary[kept[i]] for i in trimmed.encode_rows(["cab"], 16)[0]] == ["[CLS]", "c", "##a", "##b", "[SEP]"]
    # Room for two more: the first ones by id that a text can have.
    more = choose_tokens(source, ["ab 中"], len(kept) + 2)
    assert {vocabulary[i] for i in set(more) - set(kept)} == {"cab", "##ca"}
    with pytest.raises(ParamsError, match=rf"of 5 tokens is asked for, but .* need {len(kept)}\."):
        choose_tokens(source, ["ab 中"], 5)


def test_a_word_that_no_pieces_finish_stays_unknown(tmp_path: Path) -> None:
    # "ab" is longest, and "##c" is not there: unknown. Without "ab", "a" and "##bc" would spell it.
    source = word_piece(tmp_path / "full", ["a", "ab", "##bc"])
    kept = trim(source, ["abc"], tmp_path / "trimmed")
    assert TextEncoder(tmp_path / "trimmed").encode_rows(["abc"], 16) == [[2, 1, 3]]
    assert same_segmentation(source, tmp_path / "trimmed", kept, ["abc"]).all()


def test_transformers_reads_the_same_tokens(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    source = word_piece(tmp_path / "full", ["x", "y", "dog", "cat", "##s"])
    trim(source, ["cat"], tmp_path / "trimmed")
    (tmp_path / "trimmed/config.json").write_text('{"model_type": "bert"}')
    theirs = AutoTokenizer.from_pretrained(tmp_path / "trimmed")
    texts = ["cats", "x dog", "[MASK] cat"]
    assert theirs(texts)["input_ids"] == TextEncoder(tmp_path / "trimmed").encode_rows(texts, 64)
    assert (theirs.mask_token_id, theirs.pad_token_id) == (4, 0)
    assert "dog" not in theirs.get_vocab()


def test_the_chinese_vocabulary(datasets: Path, tmp_path: Path) -> None:
    import csv

    tokens = (datasets / "vocab/bert-base-chinese-vocab.txt").read_text(encoding="utf-8").split("\n")
    with (datasets / "thucnews_titles/train.csv").open(encoding="utf-8", newline="") as stream:
        texts = [row[next(iter(row))] for row, _ in zip(csv.DictReader(stream), range(3000), strict=False)]
    from transformers import BertTokenizerFast

    source = tmp_path / "full"
    source.mkdir()
    (source / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    BertTokenizerFast(vocab_file=str(source / "vocab.txt")).save_pretrained(source)
    train, other = texts[:1000], texts[1000:]
    kept = trim(source, train, tmp_path / "trimmed")
    # Every character is a word: the 7,000 continuations of one are never made.
    assert len(kept) < 0.55 * TextEncoder(source).vocabulary_size
    assert same_segmentation(source, tmp_path / "trimmed", kept, train).all()
    assert same_segmentation(source, tmp_path / "trimmed", kept, other).mean() > 0.75
    full, trimmed = (
        sum(index == unknown for row in TextEncoder(folder).encode_rows(other, 64) for index in row)
        for folder, unknown in ((source, 100), (tmp_path / "trimmed", int(np.searchsorted(kept, 100))))
    )
    assert trimmed == full


def test_other_tokenizers_are_refused(tmp_path: Path) -> None:
    write_word_level(tmp_path)
    with pytest.raises(ExportError, match="has a WordLevel tokenizer, and only WordPiece and byte-level BPE"):
        choose_tokens(tmp_path, ["w1"])
    source = byte_level(tmp_path / "bpe", ["ab"], 262)
    document = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    for change, reason in [({"end_of_word_suffix": "</w>"}, "sets end_of_word_suffix"), ({"vocab": None}, "256 bytes")]:
        model = document["model"] | change
        if model["vocab"] is None:
            model |= {"vocab": {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4}, "merges": []}
        (source / "tokenizer.json").write_text(json.dumps(document | {"model": model}), encoding="utf-8")
        with pytest.raises(ExportError, match=reason):
            choose_tokens(source, ["a"])

"""Which tokens of a vocabulary a text needs, and the tokenizer that knows no others."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.tokenize import TOKENIZER_FILES, TextEncoder
from pocketbert.errors import ExportError, ParamsError
from pocketbert.quantize import vocabulary_bpe, vocabulary_wordpiece

TokenIds = NDArray[np.int64]
# No row is truncated while tokens are counted and compared.
_WHOLE = 1_000_000


def choose_tokens(folder: Path, texts: Sequence[str], size: int = 0) -> TokenIds:
    """Ids, ascending, that tokenize `texts` as the whole vocabulary does, and an alphabet to spell other words with.

    Kept are the tokens of the texts, the added (special) ones, and the alphabet: of WordPiece each single character
    of the vocabulary with its continuation, where the tokenizer can ever make it; of byte-level BPE the 256 bytes.
    Ids up to the padding token's are all kept, so that this one keeps its id: RoBERTa counts its positions from
    there. Where these are fewer than `size`, the vocabulary's most frequent tokens are added. Raises ExportError for
    another kind of tokenizer, ParamsError for a size that is too small.
    """
    document = _read(folder)
    model, encoder = document["model"], TextEncoder(folder)
    if model["type"] not in ("WordPiece", "BPE"):
        raise ExportError(
            f"{folder} has a {model['type']} tokenizer, and only WordPiece and byte-level BPE can be trimmed",
            "Set `vocabulary: full` for this recipe.",
        )
    vocabulary = model["vocab"]
    kept = {token for row in encoder.encode_rows(texts, _WHOLE) for token in row}
    kept |= {index for index in vocabulary.values() if index <= encoder.pad_id}
    kept |= special_tokens(folder)
    if model["type"] == "WordPiece":
        kept |= {vocabulary[token] for token in vocabulary_wordpiece.fallback_tokens(document, texts)}
        frequent = vocabulary_wordpiece.frequent_tokens(document)
    else:
        kept |= {vocabulary[token] for token in vocabulary_bpe.fallback_tokens(model, _held(vocabulary, kept))}
        frequent = sorted(vocabulary, key=vocabulary.__getitem__)
    if 0 < size < len(kept):
        raise ParamsError(
            f"a vocabulary of {size} tokens is asked for, but the training text and the alphabet need {len(kept)}",
            "Raise `vocabulary` of this recipe, or set `vocabulary: trimmed`.",
        )
    added = [index for token in frequent if (index := vocabulary[token]) not in kept]
    kept |= set(added[: max(size - len(kept), 0)])
    if model["type"] == "BPE":
        kept |= {vocabulary[token] for token in vocabulary_bpe.fallback_tokens(model, _held(vocabulary, kept))}
    return np.array(sorted(kept), dtype=np.int64)


def frequent_tokens(folder: Path) -> list[int]:
    """Ids that a text can have, the most frequent first: in the order of a WordPiece or BPE vocabulary."""
    document = _read(folder)
    model = document["model"]
    if model["type"] == "WordPiece":
        return [model["vocab"][token] for token in vocabulary_wordpiece.frequent_tokens(document)]
    return sorted(TextEncoder(folder).vocabulary.values())


def special_tokens(folder: Path) -> set[int]:
    """Ids that are no words: the tokenizer's added tokens, and what it puts around a row."""
    document = _read(folder)
    around = {ids[position] for ids, position in _processor_ids(document["post_processor"])}
    return around | {entry["id"] for entry in document["added_tokens"]}


def _held(vocabulary: dict[str, int], kept: set[int]) -> list[str]:
    return [token for token, index in vocabulary.items() if index in kept]


def write_tokenizer(source: Path, kept: TokenIds, target: Path) -> None:
    """Write the tokenizer of `source` with the `kept` ids alone, renumbered in their order, into `target`."""
    new = {int(old): position for position, old in enumerate(kept)}
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    document = _read(source)
    model = document["model"]
    model["vocab"] = {token: new[index] for token, index in model["vocab"].items() if index in new}
    if model["type"] == "BPE":
        model["merges"] = vocabulary_bpe.kept_merges(model)
    for entry in document["added_tokens"]:
        entry["id"] = new[entry["id"]]
    for ids, position in _processor_ids(document["post_processor"]):
        ids[position] = new[ids[position]]
    _write(target / "tokenizer.json", document)
    config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    if "added_tokens_decoder" in config:
        entries = config["added_tokens_decoder"].items()
        config["added_tokens_decoder"] = {str(new[int(index)]): entry for index, entry in entries}
        _write(target / "tokenizer_config.json", config)
    if (source / "vocab.txt").is_file():
        tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
        (target / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


def same_segmentation(full: Path, trimmed: Path, kept: TokenIds, texts: Sequence[str]) -> NDArray[np.bool_]:
    """For each text whether the trimmed tokenizer gives the same tokens as the full one, bool [texts]."""
    rows = (TextEncoder(folder).encode_rows(texts, _WHOLE) for folder in (full, trimmed))
    return np.array([old == kept[new].tolist() for old, new in zip(*rows, strict=True)], dtype=np.bool_)


def _read(folder: Path) -> dict[str, Any]:
    """tokenizer.json; raises CheckpointError where it is missing or damaged."""
    TextEncoder(folder).vocabulary_size  # noqa: B018 (it loads the file)
    document: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return document


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")


def _processor_ids(processor: dict[str, Any] | None) -> Iterator[tuple[list[Any], int]]:
    """Where a post-processor of tokenizer.json holds the ids that it adds around a row: (list, position) pairs."""
    kind = processor["type"] if processor else None
    if processor is None or kind == "ByteLevel":
        return
    if kind == "Sequence":
        for part in processor["processors"]:
            yield from _processor_ids(part)
    elif kind == "TemplateProcessing":
        for entry in processor["special_tokens"].values():
            yield from ((entry["ids"], position) for position in range(len(entry["ids"])))
    elif kind in ("BertProcessing", "RobertaProcessing"):
        yield from ((processor[end], 1) for end in ("sep", "cls"))
    else:
        raise ExportError(f"a {kind} post-processor of a tokenizer is not known", "Set `vocabulary: full`.")

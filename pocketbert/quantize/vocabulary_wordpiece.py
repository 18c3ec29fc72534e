"""What a WordPiece vocabulary needs beside the tokens of a text."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Document = dict[str, Any]
Split = Callable[[str], list[str]]


def fallback_tokens(document: Document, texts: Sequence[str]) -> Iterator[str]:
    """The unknown token, the alphabet, and the pieces of words that no piece can finish.

    `document` is tokenizer.json. The alphabet is each single character and each continuation of one. Greedy longest
    match gives a word of kept pieces the same pieces when others are dropped: what was longest still is. Only a word
    that ends unknown could turn out otherwise, so all of its pieces are kept.
    """
    model = document["model"]
    yield model["unk_token"]
    yield from (token for token, text in _usable_tokens(document) if len(text) == 1)
    for word in _unknown_words(document, texts):
        yield from _pieces(word, model)


def frequent_tokens(document: Document) -> list[str]:
    """All tokens that a text can ever have, in the order of their ids: a vocabulary is made most frequent first."""
    vocabulary = document["model"]["vocab"]
    return sorted((token for token, _ in _usable_tokens(document)), key=vocabulary.__getitem__)


def _usable_tokens(document: Document) -> Iterator[tuple[str, str]]:
    """Tokens, each with its own characters, less those that the tokenizer's splitting can never make.

    "##中" and "##!" are such, since both characters are words of their own, and "[unused7]", and what the normalizer
    changes. BERT's own splitting decides character by character, so that it can be asked about a token alone; with
    another one every token counts as usable.
    """
    prefix, split = document["model"]["continuing_subword_prefix"], _splitter(document)
    own = [(document[part] or {}).get("type") for part in ("normalizer", "pre_tokenizer")]
    judged = own == ["BertNormalizer", "BertPreTokenizer"]
    for token in document["model"]["vocab"]:
        continues = token.startswith(prefix) and token != prefix
        text = token.removeprefix(prefix) if continues else token
        words = split(f"a{text}" if continues else text) if judged else [token]
        if any(text in word and len(word) - len(text) >= continues for word in words):
            yield token, text


def _splitter(document: Document) -> Split:
    """text -> its words as the tokenizer's own normalizer and splitting hand them to the model."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(document))
    normalize = tokenizer.normalizer.normalize_str if tokenizer.normalizer else str
    if tokenizer.pre_tokenizer is None:
        return lambda text: [normalize(text)]
    return lambda text: [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalize(text))]


def _unknown_words(document: Document, texts: Sequence[str]) -> set[str]:
    from tokenizers import Tokenizer

    split = _splitter(document)
    tokenizer, unknown = Tokenizer.from_str(json.dumps(document)), document["model"]["unk_token"]
    tokenizer.no_truncation()
    rows = tokenizer.encode_batch(list(texts))
    words = {word for text, row in zip(texts, rows, strict=True) if unknown in row.tokens for word in split(text)}
    return {word for word in words if unknown in (token.value for token in tokenizer.model.tokenize(word))}


def _pieces(word: str, model: Document) -> Iterator[str]:
    """Every token that occurs in a word; none of a word that is unknown by its length alone."""
    if len(word) > model["max_input_chars_per_word"]:
        return
    for start in range(len(word)):
        for end in range(start + 1, len(word) + 1):
            piece = (model["continuing_subword_prefix"] if start else "") + word[start:end]
            if piece in model["vocab"]:
                yield piece

"""Synonyms from WordNet, read with NLTK from NLTK's data or from a plain WordNet dictionary."""

import io
import re
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import nltk.data
from nltk.corpus.reader.wordnet import WordNetCorpusReader, WordNetError

from pocketbert.errors import DataError

# Debian's and Ubuntu's package wordnet-base.
SYSTEM_DICTIONARY = Path("/usr/share/wordnet")
# Function words, most of which WordNet knows by a rare sense only ("in" as inch, "it" as information technology).
FUNCTION_WORDS = frozenset(
    {
        *("about", "above", "after", "again", "all", "also", "and", "any", "are", "because", "been", "before", "being"),
        *("below", "between", "both", "but", "can", "could", "did", "does", "doing", "down", "during", "each", "few"),
        *(
            "for",
            "from",
            "had",
            "has",
            "have",
            "her",
            "here",
            "him",
            "his",
            "how",
            "into",
            "its",
            "just",
            "may",
            "might",
        ),
        *("more", "most", "must", "nor", "not", "now", "off", "only", "other", "our", "out", "over", "own", "same"),
        *("she", "should", "some", "such", "than", "that", "the", "their", "them", "then", "there", "these", "they"),
        *("this", "those", "through", "too", "under", "until", "very", "was", "were", "what", "when", "where", "which"),
        *("while", "who", "why", "will", "with", "without", "would", "you", "your"),
    }
)
_FIX = (
    "Install it (`apt-get install wordnet-base`, or `python -m nltk.downloader wordnet`), set augment.wordnet to its "
    "folder, or set augment.synonym_probability: 0."
)


class _Dictionary(WordNetCorpusReader):
    """NLTK's reader for a dictionary that lacks two files that only other uses need.

    Debian's dictionary has neither `lexnames` (names of the lexicographers' files) nor `index.sense` (which NLTK maps
    to other versions of WordNet for its multilingual data).
    """

    def open(self, file: str) -> Any:
        if file == "lexnames":
            return io.StringIO("".join(f"{i:02d} file{i:02d} 0\n" for i in range(45)))
        return super().open(file)

    def map_wn(self, version: str = "wordnet") -> None:  # noqa: ARG002
        return None


class Synonyms:
    """Synonyms of single English words; deterministic for one dictionary."""

    def __init__(self, reader: Any, source: str) -> None:
        self.source = source
        self._reader = reader
        self.of = lru_cache(maxsize=None)(self._lookup)

    def _lookup(self, word: str) -> tuple[str, ...]:
        """Lower-case synonyms of a word in its most frequent sense, sorted; maybe none."""
        word = word.lower()
        if len(word) < 3 or not re.fullmatch(r"[a-z]+", word) or word in FUNCTION_WORDS:
            return ()
        # WordNet orders senses within a part of speech only; its counts tell "cover" the noun from the verb.
        senses = [synset for p in "nvar" for synset in self._reader.synsets(word, pos=p)[:1]]
        bases = {word, *(self._reader.morphy(word, p) for p in "nvar")}
        if not senses:
            return ()
        likeliest = max(senses, key=lambda synset: _count(synset, bases))
        names = {name.replace("_", " ").lower() for name in likeliest.lemma_names()}
        # An inflected word's own base form ("phones" -> "phone") is no synonym.
        return tuple(sorted(name for name in names - bases if re.fullmatch(r"[a-z][a-z -]*", name)))


def _count(synset: Any, bases: set[str]) -> int:
    """How often WordNet's tagged texts use one of the words in this sense."""
    return sum(lemma.count() for lemma in synset.lemmas() if lemma.name().lower() in bases)


def load_synonyms(folder: Path | None = None) -> Synonyms:
    """Open WordNet in `folder`, or by NLTK_DATA and NLTK's usual paths, or the system's; raises DataError."""
    root = _find(folder)
    if root is None:
        where = f"in {folder}" if folder else f"in NLTK_DATA, NLTK's usual paths or {SYSTEM_DICTIONARY}"
        raise DataError(f"synonym replacement needs WordNet, which is not {where}", _FIX)
    try:
        with warnings.catch_warnings():
            # English alone is wanted.
            warnings.filterwarnings("ignore", message="The multilingual functions are not available")
            reader = _Dictionary(root, None)
        reader.open("cntlist.rev").close()
        return Synonyms(reader, str(root))
    except (OSError, LookupError, ValueError, WordNetError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the WordNet dictionary in {root} cannot be read: {reason}", _FIX) from error


def _find(folder: Path | None) -> Any:
    """NLTK's pointer to a folder (or to one inside a zip) that holds data.noun, or None.

    NLTK reads only below the folders of `nltk.data.path`: the one that is named here, or the system's dictionary, joins
    them when it is used.
    """
    plain = [folder, folder / "dict"] if folder else [SYSTEM_DICTIONARY]
    paths = [str(folder)] if folder else cast("list[str]", nltk.data.path)
    for name in ("corpora/wordnet", "corpora/wordnet.zip/wordnet/"):
        try:
            pointer = nltk.data.find(name, paths=paths)
        except LookupError:
            continue
        _allow(folder)
        return pointer
    dictionary = next((p for p in plain if (p / "data.noun").is_file()), None)
    _allow(dictionary)
    return None if dictionary is None else nltk.data.FileSystemPathPointer(str(dictionary.resolve()))


def _allow(folder: Path | None) -> None:
    if folder is not None and str(folder.resolve()) not in nltk.data.path:
        nltk.data.path.append(str(folder.resolve()))

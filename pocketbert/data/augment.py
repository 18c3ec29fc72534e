"""Extra training rows by synonym replacement and random deletion (EDA: Wei and Zou, arXiv:1901.11196)."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pocketbert.data.dataset import Split
from pocketbert.errors import DataError
from pocketbert.params import AugmentParams

if TYPE_CHECKING:
    from pocketbert.data.wordnet import Synonyms

# Scripts that are written without spaces (Han, kana, Thai, Lao, Khmer, Myanmar): each character is a unit.
_SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNIT = re.compile(rf"([{_SPACELESS}]|[^\s{_SPACELESS}]+)(\s*)")


def augment_split(train: Split, params: AugmentParams) -> Split:
    """Return the rows of `train` followed by `params.factor` altered copies of them, with the same targets.

    Each word is replaced by a random WordNet synonym with `synonym_probability` and dropped with
    `deletion_probability`; in scripts without spaces each character counts as a word and only deletion acts. At least
    one word is kept; a copy in which no draw succeeded equals its row. Seeded: equal inputs give equal rows.

    Raises DataError where synonyms are asked for and WordNet is absent or knows no word of the texts.
    """
    if params.factor == 0:
        return train
    if params.synonym_probability == 0 and params.deletion_probability == 0:
        raise DataError(
            f"augment.factor is {params.factor} but both probabilities are 0: each row would only be repeated",
            "Set augment.factor: 0, or one of synonym_probability and deletion_probability above 0.",
        )
    synonyms = _synonyms(train, params.wordnet) if params.synonym_probability > 0 else None
    random = np.random.default_rng(params.seed)
    copies = [_alter(text, params, synonyms, random) for _ in range(params.factor) for text in train.texts]
    return Split([*train.texts, *copies], np.concatenate([train.targets] * (params.factor + 1)))


def _synonyms(train: Split, folder: Path | None) -> "Synonyms":
    from pocketbert.data.wordnet import load_synonyms

    synonyms = load_synonyms(folder)
    if not any(synonyms.of(word.lower()) for text in train.texts for word in text.split()):
        raise DataError(
            "no word of the training texts has a synonym in WordNet, which is English",
            "Set augment.synonym_probability: 0 for texts in another language.",
        )
    return synonyms


def _alter(text: str, params: AugmentParams, synonyms: "Synonyms | None", random: np.random.Generator) -> str:
    units = _UNIT.findall(text)
    # Drawn for every unit, so that a row's fate does not depend on what WordNet knows.
    replace = random.random(len(units)) < params.synonym_probability
    keep = random.random(len(units)) >= params.deletion_probability
    keep[random.integers(len(units))] |= not keep.any()
    altered: list[str] = []
    for (word, space), is_kept, is_replaced in zip(units, keep, replace, strict=True):
        if not is_kept:
            continue
        choices = synonyms.of(word.lower()) if synonyms is not None and is_replaced else ()
        altered.append((choices[random.integers(len(choices))] if choices else word) + space)
    return "".join(altered).strip()

"""Two models of which one knows a part of the other's vocabulary, on the same tokens."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert.comparison.side import Side
from pocketbert.data.tokenize import TextEncoder


def share_tokens(a: Side, b: Side, said: list[str]) -> TextEncoder | None:
    """The tokenizer of the smaller vocabulary; the other model gets the same tokens under its own ids from now on.

    None, and nothing done, where one has no tokenizer beside it, both have the same, or neither holds the other's
    tokens. A vocabulary that was trimmed is such a part: its rows say whether the model is still the same.
    """
    found = [TextEncoder(_folder(side)) for side in (a, b) if (_folder(side) / "tokenizer.json").is_file()]
    if len(found) < 2 or found[0].vocabulary == found[1].vocabulary:
        return None
    small, large = sorted(zip(found, (a, b), strict=True), key=lambda pair: len(pair[0].vocabulary))
    if not small[0].vocabulary.keys() <= large[0].vocabulary.keys():
        return None
    large[1].own_ids = _translation(small[0].vocabulary, large[0].vocabulary)
    said.append(
        f"tokenizer: {small[0].folder}; its {len(small[0].vocabulary)} tokens are part of the "
        f"{len(large[0].vocabulary)} of {large[0].folder}: both models get the same tokens, each under its own ids"
    )
    return small[0]


def _folder(side: Side) -> Path:
    return side.path if side.path.is_dir() else side.path.parent


def _translation(small: dict[str, int], large: dict[str, int]) -> NDArray[np.int32]:
    """Position: an id of the small vocabulary; value: the id of the same token in the large one."""
    ids = np.zeros(1 + max(small.values()), dtype=np.int32)
    for token, index in small.items():
        ids[index] = large[token]
    return ids

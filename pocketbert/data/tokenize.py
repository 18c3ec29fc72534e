"""Text to token ids, one way for training, proof, evaluation, benchmark and prediction.

The Rust tokenizer that transformers saves (tokenizer.json) is used directly: a device host or `predict` need
not import transformers, and no two places can tokenize differently.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.errors import CheckpointError

# Files that a folder needs so that `TextEncoder` (and AutoTokenizer) can read it.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")

# input_ids, attention_mask and token_type_ids, each int32 [rows, length]; bound by name everywhere.
Batch = Mapping[str, NDArray[np.int32]]


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer read from the folder of a model or an artifact."""

    folder: Path

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        path = self.folder / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(
                f"{path} does not exist",
                "Save the tokenizer there with transformers' AutoTokenizer.save_pretrained.",
            )
        try:
            return Tokenizer.from_file(str(path))
        # The tokenizers library raises bare Exceptions.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path} cannot be read: {reason}", "Fetch or build the model again.") from error

    @cached_property
    def _pad(self) -> tuple[int, str]:
        """Id and text of the padding token."""
        path = self.folder / "tokenizer_config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}", "Fetch or build the model again.") from error
        token = config.get("pad_token") or "[PAD]"
        text = token if isinstance(token, str) else token["content"]
        index = self._tokenizer.token_to_id(text)
        if index is None:
            raise CheckpointError(
                f"the tokenizer in {self.folder} has no padding token",
                "Set pad_token in tokenizer_config.json.",
            )
        return index, text

    @property
    def pad_id(self) -> int:
        """Id of the padding token."""
        return self._pad[0]

    @property
    def vocabulary(self) -> dict[str, int]:
        """Token -> id (added tokens counted)."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return vocabulary

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest token id (added tokens counted)."""
        return 1 + max(self.vocabulary.values())

    def encode(self, texts: Sequence[str], max_length: int, pad_to: int | None = None) -> dict[str, NDArray[np.int32]]:
        """Tokenize, truncate to `max_length` and pad to `pad_to`, or to the longest row when None.

        Returns int32 arrays [rows, length]: input_ids, attention_mask (1 = token), token_type_ids.
        """
        tokenizer, (pad_id, pad_token) = self._tokenizer, self._pad
        tokenizer.enable_truncation(max_length)
        tokenizer.enable_padding(pad_id=pad_id, pad_token=pad_token, length=pad_to)
        rows = tokenizer.encode_batch(list(texts))
        return {
            "input_ids": np.array([row.ids for row in rows], dtype=np.int32),
            "attention_mask": np.array([row.attention_mask for row in rows], dtype=np.int32),
            "token_type_ids": np.array([row.type_ids for row in rows], dtype=np.int32),
        }

    def encode_rows(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Token ids of each text, truncated but not padded (for length-bucketed training batches)."""
        tokenizer = self._tokenizer
        tokenizer.enable_truncation(max_length)
        tokenizer.no_padding()
        return [row.ids for row in tokenizer.encode_batch(list(texts))]

    def copy_to(self, folder: Path) -> None:
        """Copy the tokenizer's files into another artifact's folder."""
        import shutil

        for name in TOKENIZER_FILES:
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, folder / name)

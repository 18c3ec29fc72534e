"""Embedding tables that the host looks up, for graphs of export_tflite's profile `embeddings`.

Old GPU delegates refuse GATHER. Such a graph reads floats; its tables lie beside the model file and are memory-mapped,
so that a row costs its own bytes only.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.tokenize import Batch
from pocketbert.errors import CheckpointError

WORDS_FILE, POSITIONS_FILE = "host_embeddings.npy", "host_positions.npy"
# Inputs of such graphs: the sum of both tables' rows, or the two apart where the graph projects the words first.
SUM_INPUT, WORDS_INPUT, POSITIONS_INPUT = "embeddings", "word_embeddings", "position_embeddings"


class HostLookup:
    """Words float32 [V, E] and positions float32 [token types, S, H]."""

    def __init__(self, words: NDArray[np.float32], positions: NDArray[np.float32]) -> None:
        self._words, self._positions = words, positions

    @classmethod
    def beside(cls, model: Path) -> "HostLookup | None":
        """The tables of a model file, memory-mapped; None where it has none. Raises CheckpointError."""
        paths = [model.with_name(name) for name in (WORDS_FILE, POSITIONS_FILE)]
        if not paths[0].exists():
            return None
        try:
            words, positions = (np.load(path, mmap_mode="r", allow_pickle=False) for path in paths)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"the tables beside {model} cannot be read: {error}", "Export it again.") from error
        return cls(words, positions)

    @property
    def token_types(self) -> int:
        """Token types that the positions' table tells apart."""
        return len(self._positions)

    def write(self, folder: Path) -> None:
        """Write the tables beside a model file in `folder`."""
        np.save(folder / WORDS_FILE, self._words, allow_pickle=False)
        np.save(folder / POSITIONS_FILE, self._positions, allow_pickle=False)

    def extend(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """`batch` and the graph's float inputs [rows, S, width] of its ids [rows, S]; raises CheckpointError."""
        ids = batch["input_ids"]
        types = batch["token_type_ids"] if self.token_types > 1 else np.zeros_like(ids)
        if ids.max(initial=0) >= len(self._words) or types.max(initial=0) >= len(self._positions):
            raise CheckpointError(
                f"token id {ids.max()} or type {types.max()} is beyond the tables of {len(self._words)} words",
                "The tokenizer is another model's; export both again.",
            )
        length = min(ids.shape[1], self._positions.shape[1])
        words = np.asarray(self._words[ids])
        positions = np.zeros((*ids.shape, self._positions.shape[-1]), np.float32)
        # What is too long is refused where it is bound.
        positions[:, :length] = self._positions[types[:, :length], np.arange(length)]
        extended = {**batch, WORDS_INPUT: words, POSITIONS_INPUT: positions}
        return extended | ({SUM_INPUT: words + positions} if words.shape == positions.shape else {})


def with_host_inputs(model: Path, batch: Batch) -> Batch:
    """`batch` as it is, or with the float inputs of a model file whose tables lie beside it."""
    host = HostLookup.beside(model) if "input_ids" in batch else None
    return host.extend(batch) if host else batch

"""The rows that every artifact of a benchmark is measured on: the same texts, each in the artifact's own tokens."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import DeviceError, ParamsError
from pocketbert.params import BenchmarkParams


def choose_rows(params: BenchmarkParams, split: Split) -> Split:
    """As many rows as are needed, drawn by the seed; raises DeviceError where there are none."""
    if not split.texts:
        raise DeviceError("there are no rows to measure with", "Give the data set a test split with rows in it.")
    count = min(len(split), max(params.proof_rows, params.accuracy_rows, params.runs))
    chosen = np.random.default_rng(params.seed).choice(len(split), size=count, replace=False)
    return Split([split.texts[i] for i in chosen], split.targets[chosen])


def require_length(params: BenchmarkParams, artifacts: Sequence[Artifact]) -> None:
    """Latencies at different lengths must not stand in one table: raises ParamsError."""
    for artifact in artifacts:
        card, wanted = artifact.card, params.sequence_length
        if card.sequence_length not in (None, wanted):
            raise ParamsError(
                f"benchmark.sequence_length is {wanted}, but {artifact.name} was built for {card.sequence_length}",
                "Set it and export_tflite.sequence_length to the same value.",
            )


def encode_rows(params: BenchmarkParams, artifact: Artifact, texts: Sequence[str]) -> dict[str, NDArray[np.int32]]:
    """int32 [rows, sequence_length] by input name.

    A model that was trained on shorter rows is cut to those, and padded to the length that is measured.
    """
    kept = min(params.sequence_length, artifact.card.max_length)
    return TextEncoder(artifact.folder).encode(texts, kept, pad_to=params.sequence_length)


def write_inputs(params: BenchmarkParams, artifact: Artifact, texts: Sequence[str], path: Path) -> None:
    """Write `encode_rows` as an .npz."""
    np.savez(path, allow_pickle=False, **encode_rows(params, artifact, texts))

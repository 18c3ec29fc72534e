"""The teacher's logits over the training text: computed once, kept as memory-mappable arrays.

A folder holds soft.json, train.npy [rows, C] and, where there is unlabelled text, unlabelled.npy and
unlabelled.parquet. Soft labels belong to texts, not to token ids, so a student may use another tokenizer.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from pocketbert.errors import TrainingError
from pocketbert.modeling.weights import first_line

_FLOAT16_MAX = float(np.finfo(np.float16).max)


class SoftLabelsCard(BaseModel):
    """soft.json: whose logits over which texts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train_rows: int
    train_digest: str
    unlabelled_rows: int
    unlabelled_digest: str
    classes: int
    teacher_md5: str
    tokenizer_digest: str


@dataclass(frozen=True)
class SoftLabels:
    """The teacher's logits, float16 or float32 [rows, C], memory-mapped and read-only."""

    card: SoftLabelsCard
    train: NDArray[np.floating]
    unlabelled_texts: list[str]
    unlabelled: NDArray[np.floating]


def write_soft_labels(soft: SoftLabels, folder: Path) -> None:
    """Write soft labels into `folder`; raises OSError where the disk is full."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_array(soft.train, folder / "train.npy")
    _write_array(soft.unlabelled, folder / "unlabelled.npy")
    _write_texts(soft.unlabelled_texts, folder / "unlabelled.parquet")
    (folder / "soft.json").write_text(soft.card.model_dump_json(indent=1), encoding="utf-8")


def read_soft_labels(folder: Path, texts: Sequence[str]) -> SoftLabels:
    """Map the soft labels in `folder`; raises TrainingError unless they belong to exactly these training texts."""
    try:
        card = SoftLabelsCard.model_validate_json((folder / "soft.json").read_text(encoding="utf-8"))
        train = np.load(folder / "train.npy", mmap_mode="r", allow_pickle=False)
        # An empty array cannot be mapped.
        mode: Literal["r"] | None = "r" if card.unlabelled_rows else None
        unlabelled = np.load(folder / "unlabelled.npy", mmap_mode=mode, allow_pickle=False)
        extra = _read_texts(folder / "unlabelled.parquet")
    except (OSError, ValueError, ValidationError) as error:
        raise TrainingError(
            f"the soft labels in {folder} cannot be read: {first_line(error)}", "Run `dvc repro soften`."
        ) from error
    for what, ours, theirs in (
        ("training", (card.train_rows, card.train_digest), (len(texts), text_digest(texts))),
        ("unlabelled", (card.unlabelled_rows, card.unlabelled_digest), (len(extra), text_digest(extra))),
    ):
        if ours != theirs:
            raise TrainingError(
                f"the soft labels in {folder} belong to other {what} texts ({ours[0]} rows, now {theirs[0]})",
                "Run `dvc repro soften`.",
            )
    if train.shape != (card.train_rows, card.classes) or unlabelled.shape != (card.unlabelled_rows, card.classes):
        raise TrainingError(f"the soft labels in {folder} are cut off", "Run `dvc repro soften`.")
    return SoftLabels(card, train, extra, unlabelled)


def text_digest(texts: Sequence[str]) -> str:
    """SHA-256 over the texts and their order."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 of a folder's tokenizer.json."""
    return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()


def _write_array(logits: NDArray[np.floating], path: Path) -> None:
    """Write .npy as float16 where it holds the values (a rounding of 0.05 %), else float32."""
    fits = logits.size == 0 or float(np.abs(logits).max()) < _FLOAT16_MAX
    stored = np.ascontiguousarray(logits, dtype=np.float16 if fits else np.float32)
    # Not np.save: its error for a full disk has no errno.
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(stored))
        stream.write(stored.tobytes())


def _write_texts(texts: list[str], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path)


def _read_texts(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return pq.read_table(path)["text"].to_pylist()

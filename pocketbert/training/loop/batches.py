"""Tokenized rows, grouped into batches of like length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from pocketbert.data.dataset import Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.modeling.inference import pad_rows
from pocketbert.modeling.losses import UNLABELLED

# Batches that are sorted by length together: enough for little padding, few enough that epochs differ.
_BATCHES_A_BUCKET = 50


@dataclass(frozen=True)
class TrainingRows(Dataset):
    """Token ids and targets: int64 [N], or float32 [N, C] for a multi-label task."""

    ids: list[list[int]]
    targets: Tensor
    pad_id: int

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> int:
        """The index itself: `collate` makes a batch from the indices at once."""
        return index

    def collate(self, indices: list[int]) -> dict[str, Tensor]:
        """input_ids and attention_mask [B, S], labels, and the rows' indices [B]."""
        rows = torch.tensor(indices)
        batch = pad_rows([self.ids[index] for index in indices], self.pad_id)
        return batch | {"labels": self.targets[rows], "rows": rows}


def tokenize_rows(split: Split, encoder: TextEncoder, max_length: int, unlabelled: Sequence[str] = ()) -> TrainingRows:
    """The rows of a split, followed by texts without a label."""
    ids = encoder.encode_rows([*split.texts, *unlabelled], max_length)
    targets = torch.from_numpy(split.targets)
    if unlabelled:
        none = torch.full((len(unlabelled), *targets.shape[1:]), UNLABELLED, dtype=targets.dtype)
        targets = torch.cat([targets, none])
    return TrainingRows(ids, targets, encoder.pad_id)


class LengthBuckets(Sampler[int]):
    """All rows once, so ordered that consecutive batches hold rows of like length; a new order each epoch.

    The order depends on seed and epoch alone, so that a resumed epoch goes on where it stopped.
    """

    def __init__(self, rows: TrainingRows, batch_size: int, seed: int) -> None:
        self.lengths = [len(row) for row in rows.ids]
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; the trainer calls this."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        shuffled = torch.randperm(len(self), generator=generator).tolist()
        size = self.batch_size * _BATCHES_A_BUCKET
        batches: list[list[int]] = []
        for start in range(0, len(shuffled), size):
            bucket = sorted(shuffled[start : start + size], key=lambda index: self.lengths[index])
            batches += [bucket[i : i + self.batch_size] for i in range(0, len(bucket), self.batch_size)]
        # The incomplete batch stays last: the loader cuts the flat order into batches of full size.
        last = [batches.pop()] if batches and len(batches[-1]) < self.batch_size else []
        order = torch.randperm(len(batches), generator=generator).tolist()
        for batch in [*(batches[i] for i in order), *last]:
            yield from batch

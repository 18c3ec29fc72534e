"""What the processes of one training exchange: torch.distributed on CPUs, with gloo.

Each step's batch is the one of a single process, shared out row by row; gradients are averaged (torch's
DistributedDataParallel, which accelerate puts around the model), so that all processes hold equal weights.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class Group:
    """The processes of a training; a single one is a group of its own."""

    rank: int = 0
    size: int = 1

    def share(self, indices: list[int]) -> tuple[list[int], float]:
        """This process's rows of a batch, and the weight of their mean in the mean over processes.

        The mean over processes of (weight times mean over own rows) is the mean over the batch, also where the batch
        cannot be divided evenly. A process without a row takes one along with weight 0.
        """
        own = indices[self.rank :: self.size]
        return own or indices[:1], len(own) * self.size / len(indices)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over the processes."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.size
        return values

    def follow(self, decision: bool) -> bool:
        """What rank 0 has decided."""
        if self.size == 1:
            return decision
        return bool(self.mean(torch.tensor(float(decision and self.rank == 0))) > 0)

    def gather(self, rows: Tensor, total: int) -> Tensor:
        """[total, C] from each process's every size-th row [n, C], in order."""
        if self.size == 1:
            return rows
        longest = -(-total // self.size)
        padded = torch.zeros(longest, *rows.shape[1:], dtype=rows.dtype)
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.stack(parts, dim=1).flatten(0, 1)[:total]

    def copy_folder(self, source: Path | None, parent: Path) -> Path | None:
        """Rank 0's folder `source` (or None), as a folder of the same name in the others' `parent`."""
        if self.size == 1:
            return source
        names = [source.name, *sorted(p.name for p in source.iterdir() if p.is_file())] if source is not None else []
        heading = _broadcast("\n".join(names).encode()).decode()
        if not heading:
            return None
        folder, *files = heading.split("\n")
        target = source or parent / folder
        target.mkdir(parents=True, exist_ok=True)
        for name in files:
            content = _broadcast((target / name).read_bytes() if self.rank == 0 else b"")
            if self.rank > 0:
                (target / name).write_bytes(content)
        return target


ALONE = Group()


def _broadcast(content: bytes) -> bytes:
    """Rank 0's bytes, in every process."""
    size = torch.tensor([len(content)])
    dist.broadcast(size, 0)
    payload = torch.frombuffer(bytearray(content or bytes(int(size))), dtype=torch.uint8) if size else torch.empty(0)
    if size:
        dist.broadcast(payload, 0)
    return payload.numpy().tobytes()

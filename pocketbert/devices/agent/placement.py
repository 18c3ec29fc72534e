"""Where a runtime put a model's operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Placement:
    """Where a runtime put a model's operators; None where it does not tell."""

    accelerator: Literal["cpu", "gpu"] = "cpu"
    # The GPU as its driver names it.
    adapter: str | None = None
    # A driver that computes on the CPU: good for proofs, never for times.
    software: bool = False
    total: int | None = None
    delegated: int | None = None
    partitions: int | None = None
    # The runtime's own lines, "OPERATOR: reason"; one for each kind and reason.
    refused: tuple[str, ...] = ()

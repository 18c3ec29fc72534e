"""What every engine of the device is, and how a measurement is refused.

Rows are int32 arrays [1, S] by input name; `run` gives logits float32 [classes].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Rows = Mapping[str, Any]


class Refused(Exception):
    """The measurement cannot be had: `cause` says why and `fix`, where there is one, what to do, in one line."""

    def __init__(self, cause: str, fix: str = "") -> None:
        self.cause, self.fix = cause, fix
        super().__init__(f"{cause.rstrip('.')}. {fix}" if fix else cause)


class Engine:
    """A loaded model; what could be told of its placement is None where it has no meaning."""

    accelerator = "cpu"
    # The GPU as its driver names it.
    gpu_adapter: str | None = None
    delegated_ops: int | None = None
    partitions: int | None = None
    # Whether its times mean something: not those of a GPU's driver in software.
    timed = True

    def __init__(self, name: str, run: Callable[[Rows], Any]) -> None:
        # Engine and version, for instance "litert 2.3.0".
        self.name = name
        self.run = run


def pick_logits(outputs: list[str]) -> str:
    """`logits`, else the first output."""
    return "logits" if "logits" in outputs else outputs[0]

"""Files that read embeddings (export_tflite.profile: embeddings): compared by ids, which are looked up on the host."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pocketbert.errors import CheckpointError, DeviceError, ProofError
from pocketbert.runtimes.base import TensorSpec
from pocketbert.runtimes.host_lookup import (
    POSITIONS_FILE,
    POSITIONS_INPUT,
    SUM_INPUT,
    WORDS_FILE,
    WORDS_INPUT,
    HostLookup,
)

_FLOAT_INPUTS = (SUM_INPUT, WORDS_INPUT, POSITIONS_INPUT)


class HostInputs:
    """The inputs of such a file as they would be without a lookup on the host, and what the file gets instead."""

    def __init__(self, lookup: HostLookup, inputs: tuple[TensorSpec, ...]) -> None:
        length = next(spec.shape[1] for spec in inputs if spec.name in _FLOAT_INPUTS)
        looked_up = ["input_ids", *(["token_type_ids"] if lookup.token_types > 1 else [])]
        self._lookup, self._names = lookup, [spec.name for spec in inputs]
        self.inputs = (
            *(TensorSpec(name, "int32", (1, length)) for name in looked_up),
            *(spec for spec in inputs if spec.name not in _FLOAT_INPUTS),
        )

    def look_up(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The file's own inputs, in its order, for arrays in the order of `inputs`; raises DeviceError as an engine."""
        given = {spec.name: array for spec, array in zip(self.inputs, arrays, strict=True)}
        try:
            extended = self._lookup.extend(given)
        except CheckpointError as error:
            raise DeviceError(error.cause, error.fix) from error
        return [extended[name] for name in self._names]


def host_inputs(path: Path, inputs: tuple[TensorSpec, ...]) -> HostInputs | None:
    """For a file that reads embeddings, else None; raises ProofError where its tables are not beside it."""
    read = next((spec for spec in inputs if spec.name in _FLOAT_INPUTS and len(spec.shape) == 3), None)
    if read is None:
        return None
    lookup = HostLookup.beside(path)
    if lookup is None:
        raise ProofError(
            f"{path} reads {read.name!r}, rows of its embedding tables, and {WORDS_FILE} is not beside it",
            f"Put {WORDS_FILE} and {POSITIONS_FILE} there: export_tflite wrote them into the artifact's folder.",
        )
    return HostInputs(lookup, inputs)

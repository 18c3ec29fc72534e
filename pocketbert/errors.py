"""The one exception tree. Every message names the cause and the way out.

PocketBertError            exit 1   anything that pocketbert itself can explain
├── ParamsError            exit 2   params.yaml, devices.yaml or a command line says something impossible
├── DataError              exit 3   a data set cannot be read, cleaned, split or augmented
├── CheckpointError        exit 4   weights or a tokenizer cannot be found, trusted or loaded
├── TrainingError          exit 5   training went wrong (NaN, a mismatch of soft labels, a bad layer map)
├── ExportError            exit 6   a model cannot be converted or quantized
├── ProofError             exit 7   two models that must agree do not
├── BudgetError            exit 8   a measured row is over its budget
├── DeviceError            exit 9   a device, runtime or measurement failed
├── StorageError           exit 10  a file cannot be written (disk full, no permission)
└── TrackingError          exit 11  the MLflow store refused or cannot be reached where it must be
"""

from typing import ClassVar


class PocketBertError(Exception):
    """Base of all errors. `cause` says what is wrong, `fix` says what to do about it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, cause: str, fix: str) -> None:
        self.cause = cause
        self.fix = fix
        super().__init__(f"{cause.rstrip('.')}. {fix}")


class ParamsError(PocketBertError):
    """params.yaml, devices.yaml or a command line says something impossible."""

    exit_code = 2


class DataError(PocketBertError):
    """A data set cannot be read, cleaned, split or augmented."""

    exit_code = 3


class CheckpointError(PocketBertError):
    """Weights or a tokenizer cannot be found, trusted or loaded."""

    exit_code = 4


class TrainingError(PocketBertError):
    """Training went wrong."""

    exit_code = 5


class ExportError(PocketBertError):
    """A model cannot be converted or quantized."""

    exit_code = 6


class ProofError(PocketBertError):
    """Two models that must agree do not."""

    exit_code = 7


class BudgetError(PocketBertError):
    """A measured row is over its budget."""

    exit_code = 8


class DeviceError(PocketBertError):
    """A device, runtime or measurement failed."""

    exit_code = 9


class StorageError(PocketBertError):
    """A file cannot be written."""

    exit_code = 10


class TrackingError(PocketBertError):
    """The MLflow store refused or cannot be reached where it must be."""

    exit_code = 11

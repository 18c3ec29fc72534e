"""The GPU's refusals as pocketbert's errors; what LiteRT says is read by `pocketbert.devices.agent.litert_log`."""

from collections.abc import Iterator
from contextlib import contextmanager

from pocketbert.devices.agent import litert_log
from pocketbert.devices.agent.engine import Refused
from pocketbert.errors import DeviceError
from pocketbert.runtimes.base import Placement


class NoGpuError(DeviceError):
    """This machine has no GPU that the runtime can use."""

    def __init__(self) -> None:
        refused = litert_log.NoGpu()
        super().__init__(refused.cause, refused.fix)


@contextmanager
def as_device_error() -> Iterator[None]:
    """Raise what the agent's code refuses as NoGpuError or DeviceError."""
    try:
        yield
    except litert_log.NoGpu as error:
        raise NoGpuError from error
    except Refused as error:
        raise DeviceError(error.cause, error.fix) from error


def require_gpu(placement: Placement, *, software_gpu: bool) -> None:
    """Refuse a run that would be reported as the GPU's and is not; raises DeviceError."""
    with as_device_error():
        litert_log.require_gpu(placement, software_gpu=software_gpu)

"""A failed write of weights as the OSError behind it, so that a full disk is told as a full disk."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

_PROBE_BYTES = 1 << 20


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn torch's and safetensors' own errors for a failed write into the OSError behind them."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise _os_error(int(number[1]), folder) from error
    except RuntimeError as error:
        # torch.save does not tell why a write failed: ask the file system.
        if "inline_container.cc" not in str(error):
            raise
        _probe(folder)
        raise _os_error(errno.EIO, folder) from error


def _os_error(number: int, folder: Path) -> OSError:
    return OSError(number, os.strerror(number), str(folder))


def _probe(folder: Path) -> None:
    """Write, sync and delete a small file; raises OSError where that is not possible."""
    probe = folder / ".probe"
    try:
        with probe.open("wb") as stream:
            stream.write(bytes(_PROBE_BYTES))
            os.fsync(stream.fileno())
    finally:
        probe.unlink(missing_ok=True)

"""What the file system refuses, in one clear line."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pocketbert.errors import StorageError

_DISK_SIGNS = (os.strerror(errno.ENOSPC), "PytorchStreamWriter failed writing", ". unexpected pos ")


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn a full disk or a missing permission into one clear line."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "Free some space (`dvc gc --workspace` drops unused versions) and run `dvc repro` again.",
            errno.EDQUOT: "Free some of your quota and run `dvc repro` again.",
            errno.EACCES: "Give yourself permission to write there.",
            errno.EROFS: "Use a writable file system.",
        }
        if error.errno not in reasons:
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise StorageError(f"{where}{error.strerror}", reasons[error.errno]) from error
    except Exception as error:
        # safetensors and torch.save report what the disk refused as errors of their own, without a number.
        if not any(sign in str(error) for sign in _DISK_SIGNS):
            raise
        cause = str(error).splitlines()[0]
        raise StorageError(f"the disk refuses to be written: {cause}", "Free some space, then `dvc repro`.") from error

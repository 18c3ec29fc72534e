"""Places that only one flow may take at a time; the others wait."""

import fcntl
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flows.mend import WORKSPACE_LOCK, mend

# The shortest that Prefect takes: after it, the slot of a killed flow is free again.
_LEASE_S = 60


class WorkspaceBusyError(Exception):
    """Another flow works in this folder."""


@contextmanager
def workspace_slot(*, wait: bool = True) -> Iterator[None]:
    """Wait until no other flow works in this folder: a second dvc would fail instead of waiting.

    A lock of the kernel's, which is free the moment its holder is dead, and not a concurrency limit of Prefect's,
    which after a kill is taken for a minute or two, and for ever where the server was killed too. Raises
    WorkspaceBusyError where it would wait and must not.
    """
    from prefect import get_run_logger

    WORKSPACE_LOCK.parent.mkdir(exist_ok=True)
    with WORKSPACE_LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise WorkspaceBusyError from None
            get_run_logger().info("another flow works in this folder; this one waits")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for mended in mend():
            get_run_logger().warning("%s", mended)
        yield


@contextmanager
def device_slot(name: str, *, local: bool) -> Iterator[None]:
    """Wait until no other flow of this Prefect server measures on a device; `local` is another one on each machine."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.concurrency.sync import concurrency
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    limit = f"device {name} of {socket.gethostname()}" if local else f"device {name}"
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(limit)
        except ObjectNotFound:
            # Another flow may have been faster.
            with suppress(ObjectAlreadyExists):
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=limit, limit=1))
    # Without strict, a limit that does not exist limits nothing. A server that is away for a while must not end
    # a measurement.
    with concurrency(limit, strict=True, lease_duration=_LEASE_S, raise_on_lease_renewal_failure=False):
        yield

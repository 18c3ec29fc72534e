"""The DVC workspace that a flow works in: its stages, its overrides, one flow at a time."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pocketbert.errors import ParamsError
from pocketbert.params import parse_params, read_yaml

PARAMS = Path("params.yaml")
# The shortest that Prefect takes: after it, the slot of a killed flow is free again.
_LEASE_S = 60
# What a stage may take to end on an interrupt; Prefect kills a cancelled flow after 30 s.
_GRACE_S = 10


def stage_order() -> list[str]:
    """Addresses of all stages (quantize@onnx-fp16, ...), dependencies first, as DVC sees them."""
    import networkx
    from dvc.repo import Repo

    with Repo() as repo:
        graph = repo.index.graph
        return [stage.addressing for stage in reversed(list(networkx.topological_sort(graph)))]


def apply_overrides(overrides: Sequence[str]) -> None:
    """Write overrides ("distill.temperature=4") into params.yaml as `dvc exp run -S` does, with DVC's own code.

    As there, the values stay in params.yaml, so that it tells what the results were made of. Raises ParamsError
    and then changes nothing.
    """
    from dvc.exceptions import InvalidArgumentError
    from dvc.utils.hydra import apply_overrides as apply
    from dvc.utils.hydra import to_hydra_overrides
    from hydra.errors import HydraException

    temporary = PARAMS.with_name(f".params.{os.getpid()}.yaml")
    try:
        if any(override.is_sweep_override() for override in to_hydra_overrides(list(overrides))):
            raise ParamsError("an override holds several values", "Give one value a key; several make several runs.")
        temporary.write_bytes(PARAMS.read_bytes())
        apply(temporary, list(overrides))
        parse_params(read_yaml(temporary), Path(f"{PARAMS} + overrides"))
        temporary.replace(PARAMS)
    except (InvalidArgumentError, HydraException) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ParamsError(f"an override cannot be applied: {reason}", "Write section.key=value.") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def workspace_slot() -> Iterator[None]:
    """Wait until no other flow works in this workspace: a second dvc would fail instead of waiting."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.concurrency.sync import concurrency
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    # The same server may serve workers in other clones and on other machines.
    name = f"workspace {socket.gethostname()} {str(Path.cwd()).replace('/', ' ').strip()}"
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            # Another flow may have been faster.
            with suppress(ObjectAlreadyExists):
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
    # Without strict, a limit that does not exist limits nothing. A server that is away for a while must not end
    # a training: DVC itself still refuses a second one.
    with concurrency(name, strict=True, lease_duration=_LEASE_S, raise_on_lease_renewal_failure=False):
        yield


def run_dvc(arguments: Sequence[str], show: Callable[[str], None]) -> tuple[int, list[str]]:
    """Run dvc and show each line as it comes; returns (exit status, lines).

    It is ended with all that it started when this call is left by an exception, which is how Prefect cancels.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "POCKETBERT_WORKER": "1"}
    lines: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-m", "flows.child", "dvc", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None  # noqa: S101 (for the type checker: PIPE is set above)
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                show(lines[-1])
            return process.wait(), lines
        except BaseException:
            _end_group(process)
            raise


def _end_group(process: "subprocess.Popen[str]") -> None:
    """Interrupt as Ctrl-C would, so that a stage can close its MLflow run; then kill what is left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)

"""The DVC workspace that a flow works in: its stages, its overrides, one flow at a time."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flows.child import start_child
from pocketbert.errors import ParamsError
from pocketbert.params import parse_params, read_yaml

PARAMS = Path("params.yaml")
_LOCK = Path("dvc.lock")
# What a stage may take to end on an interrupt; Prefect kills a cancelled flow after 30 s.
_GRACE_S = 10
_LAST_LINES_S = 0.5
_running: set["subprocess.Popen[str]"] = set()


def stage_order(targets: Sequence[str] = ()) -> list[str]:
    """Addresses of all stages (quantize@onnx-fp16, ...), dependencies first, as DVC sees them.

    With `targets`, stages and groups of stages (`quantize`), only these and what they need. Raises ParamsError.
    """
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with Repo() as repo:
        try:
            graph = repo.index.graph
        except DvcException as error:
            raise ParamsError(f"DVC cannot read the pipeline: {error}", "Correct that file.") from error
        if targets:
            graph = graph.subgraph(_needed(graph, targets))
        return [stage.addressing for stage in reversed(list(networkx.topological_sort(graph)))]


def _needed(graph: Any, targets: Sequence[str]) -> set[Any]:
    import networkx

    needed: set[Any] = set()
    for target in targets:
        named = [stage for stage in graph if target in (stage.addressing, stage.addressing.partition("@")[0])]
        if not named:
            known = ", ".join(sorted({stage.addressing.partition("@")[0] for stage in graph}))
            raise ParamsError(f"there is no stage {target!r}", f"Known: {known}.")
        # An edge points from a stage to what it needs.
        needed.update(named, *(networkx.descendants(graph, stage) for stage in named))
    return needed


def apply_overrides(overrides: Sequence[str]) -> None:
    """Write overrides ("distill.temperature=4") into params.yaml as `dvc exp run -S` does, with DVC's own code.

    As there, the values stay in params.yaml, so that it tells what the results were made of. Raises ParamsError
    and then changes nothing.
    """
    with _overridden(overrides) as temporary:
        temporary.replace(PARAMS)


def check_overrides(overrides: Sequence[str]) -> None:
    """Raise ParamsError where `apply_overrides` would; changes nothing."""
    with _overridden(overrides):
        pass


@contextmanager
def _overridden(overrides: Sequence[str]) -> Iterator[Path]:
    """A copy of params.yaml with overrides, found to be valid."""
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
        yield temporary
    except (InvalidArgumentError, HydraException) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ParamsError(f"an override cannot be applied: {reason}", "Write section.key=value.") from error
    finally:
        temporary.unlink(missing_ok=True)


def clone_name() -> str:
    """This folder on this machine, as a name that Prefect takes (no / and no %)."""
    return f"{socket.gethostname()} {str(Path.cwd()).replace('/', ' ').replace('%', ' ').strip()}"


@contextmanager
def restored() -> Iterator[Callable[[], None]]:
    """Bring the workspace back to what dvc.lock said before, unless the function that this yields was called."""
    before = _LOCK.read_bytes() if _LOCK.is_file() else None
    kept: list[bool] = []
    try:
        yield lambda: kept.append(True)
    finally:
        if not kept and before is not None:
            _LOCK.write_bytes(before)
            run_dvc(["checkout", "--force"], lambda _: None)


def run_dvc(arguments: Sequence[str], show: Callable[[str], None]) -> tuple[int, list[str]]:
    """Run dvc and show each line as it comes; returns (exit status, lines).

    It is ended with all that it started when this call is left by an exception, which is how Prefect cancels, or
    by `end_all` where it was called in another thread.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    lines: list[str] = []
    process = start_child(["dvc", *arguments], {"PATH": path, "PYTHONUNBUFFERED": "1", "POCKETBERT_WORKER": "1"})
    _running.add(process)

    def read() -> None:
        assert process.stdout is not None  # noqa: S101 (for the type checker: it is a pipe)
        for line in process.stdout:
            lines.append(line.rstrip())
            show(lines[-1])

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        returncode = process.wait()
    except BaseException:
        _end_group(process)
        raise
    finally:
        _running.discard(process)
    # The process that sends the stage's MLflow record holds the other end for seconds more: it is not waited for.
    reader.join(_LAST_LINES_S)
    return returncode, list(lines)


def end_all() -> None:
    """End every dvc that this process runs: only its main thread is told of a cancellation."""
    for process in list(_running):
        _end_group(process)


def _end_group(process: "subprocess.Popen[str]") -> None:
    """Interrupt as Ctrl-C would, so that a stage can close its MLflow run; then kill what is left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    assert process.stdin is not None  # noqa: S101 (for the type checker: it is a pipe)
    process.stdin.close()
    process.wait()

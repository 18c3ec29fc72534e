"""Starting the processes that train one model together (group.py), and meeting them.

A stage starts the others itself, on this machine. Where RANK and WORLD_SIZE are set (by hand, torchrun or
accelerate launch) somebody else has started them, on any machines; those with RANK above 0 write nothing.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
from torch import distributed as dist

from pocketbert.errors import ParamsError, TrainingError
from pocketbert.process import environment_of
from pocketbert.stage import current_stage
from pocketbert.training.loop.group import ALONE, Group

_START_S = 600
# A step, an evaluation or a checkpoint of any process.
_STEP_S = 3600
_LAST_WORDS_S = 10
_LOOPBACK = "127.0.0.1"


@contextmanager
def joined(processes: int) -> Iterator[Group]:
    """The group that trains together for as long as the block lasts; alone where `processes` is 1.

    Raises ParamsError where RANK and WORLD_SIZE say something else, TrainingError where a process is lost.
    """
    given = os.environ.get("WORLD_SIZE")
    if given is not None and given != str(processes):
        raise ParamsError(
            f"WORLD_SIZE is {given}, but params.yaml asks for processes: {processes}",
            "Make them the same, or unset it.",
        )
    if processes == 1:
        yield ALONE
        return
    threads = torch.get_num_threads()
    helpers: list[subprocess.Popen[bytes]] = []
    # Without a number: optimizer states of "cpu:0" cannot be loaded.
    variables = {"ACCELERATE_TORCH_DEVICE": "cpu"}
    variables |= {} if given is not None else {
        "WORLD_SIZE": str(processes), "MASTER_ADDR": _LOOPBACK, "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": str(max(1, threads // processes)), "RANK": "0", "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": str(processes),
    }  # fmt: skip
    try:
        with environment_of(variables, "MASTER_PORT"), _explained(helpers):
            group = _start(helpers, processes) if given is None else _join()
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", threads)))
            yield group
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        _forget_accelerate()
        torch.set_num_threads(threads)
        _end(helpers)


def _start(helpers: "list[subprocess.Popen[bytes]]", processes: int) -> Group:
    """Start the others as the same stage on this machine, and wait for them."""
    stage = current_stage()
    if stage is None:
        raise ParamsError(f"{processes} processes need a stage to start", "Run a stage, or set RANK and WORLD_SIZE.")
    store = dist.TCPStore(_LOOPBACK, 0, processes, is_master=True, wait_for_workers=False)
    os.environ["MASTER_PORT"] = str(store.port)
    for rank in range(1, processes):
        command = [sys.executable, "-m", f"stages.{stage.name}"]
        # They die with this process (pocketbert.process).
        variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "POCKETBERT_WORKER": "1"}
        helpers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**os.environ, **variables}))  # noqa: S603
    waiting, limit = set(range(1, processes)), time.monotonic() + _START_S
    while waiting:
        waiting = {rank for rank in waiting if not store.check([_joined_key(rank)])}
        if any(helper.poll() is not None for helper in helpers) or time.monotonic() > limit:
            raise dist.DistError("a process did not start")
        time.sleep(0.2)
    return _enter(store, 0, processes)


def _join() -> Group:
    """Meet the others at MASTER_ADDR and MASTER_PORT, as torchrun does."""
    store, rank, size = next(dist.rendezvous("env://", timeout=timedelta(seconds=_START_S)))
    os.environ.setdefault("LOCAL_RANK", "0")
    os.environ.setdefault("LOCAL_WORLD_SIZE", "1")
    return _enter(store, rank, size)


def _enter(store: dist.Store, rank: int, size: int) -> Group:
    stage = current_stage()
    inputs = stage.checkpoint_folder.name if stage is not None else ""
    store.set(_joined_key(rank), inputs)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=_STEP_S))
    _forget_accelerate()
    differing = [other for other in range(size) if store.get(_joined_key(other)).decode() != inputs]
    if differing:
        raise TrainingError(
            f"processes {rank} and {differing[0]} have other data or parameters",
            "Give every machine the same commit, params.yaml and `dvc pull`.",
        )
    return Group(rank, size)


def _joined_key(rank: int) -> str:
    return f"joined/{rank}"


@contextmanager
def _explained(helpers: "list[subprocess.Popen[bytes]]") -> Iterator[None]:
    try:
        yield
    # gloo's own errors are plain RuntimeErrors.
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error).lower()):
            raise
        limit = time.monotonic() + _LAST_WORDS_S
        while helpers and all(helper.poll() is None for helper in helpers) and time.monotonic() < limit:
            time.sleep(0.2)
        ended = {rank: helper.poll() for rank, helper in enumerate(helpers, 1) if helper.poll() is not None}
        who = ", ".join(f"process {rank} ended with {code}" for rank, code in ended.items()) or "a process is lost"
        raise TrainingError(
            f"the processes of this training lost each other: {who}",
            "Their lines above say why; the next run goes on from the last checkpoint.",
        ) from error


def _end(helpers: "list[subprocess.Popen[bytes]]") -> None:
    limit = time.monotonic() + _LAST_WORDS_S
    for helper in helpers:
        with suppress(subprocess.TimeoutExpired):
            helper.wait(max(0.0, limit - time.monotonic()))
        helper.kill()
        helper.wait()


def _forget_accelerate() -> None:
    """Accelerate reads once a process whether there are several."""
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state()
    PartialState._reset_state()

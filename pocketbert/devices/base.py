"""One small interface over every kind of device, and what goes to it and comes back.

A measurement is a folder that can be copied: the parent writes request.json and inputs.npz into it, a fresh
process on the device writes logits.npy and then answer.json. The answer is renamed into place when it is
complete, so its presence, not an exit code, says that the measurement ended well.
"""

from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

from pocketbert.errors import DeviceError
from pocketbert.params import Section

REQUEST_FILE = "request.json"
INPUTS_FILE = "inputs.npz"
LOGITS_FILE = "logits.npy"
ANSWER_FILE = "answer.json"


class WorkerRequest(Section):
    """What one fresh process is to measure."""

    artifact: Path
    threads: int = Field(ge=1)
    # Rows of inputs.npz, from the first one on, whose logits are returned.
    proof_rows: int = Field(ge=1)
    warmup: int = Field(ge=0)
    runs: int = Field(ge=1)


class WorkerAnswer(Section):
    """What it measured; None where a reading could not be had."""

    runtime: str
    accelerator: Literal["cpu"]
    latencies_ms: list[float]
    # User and system time of all threads, and elapsed time, over the measured runs.
    cpu_s: float
    wall_s: float
    memory_baseline_bytes: int | None
    memory_peak_bytes: int | None
    power_mean_mw: float | None
    temperature_start_c: float | None
    temperature_end_c: float | None
    total_ops: int | None
    delegated_ops: int | None
    partitions: int | None


class HostFacts(Section):
    """The machine that measures; None where it does not tell."""

    kind: str
    processor: str
    cores: int
    memory_total_bytes: int | None
    os: str
    governor: str | None
    load_average_1min: float | None
    # The paths that answered, for whoever asks where a reading came from.
    temperature_source: str | None
    energy_source: str | None


class Device(Protocol):
    """A machine that can run `python -m pocketbert.devices.worker` on an artifact."""

    def facts(self) -> HostFacts:
        """Describe the machine as it is now."""
        ...

    def run_worker(self, work: Path, timeout_s: float) -> None:
        """Run the request in `work` in a fresh process; raises DeviceError on a crash, a hang or no answer."""
        ...


def write_request(work: Path, request: WorkerRequest) -> None:
    """Write request.json; inputs.npz lies beside it already."""
    (work / REQUEST_FILE).write_text(request.model_dump_json(indent=1), encoding="utf-8")


def read_request(work: Path) -> WorkerRequest:
    """Read what `write_request` wrote."""
    return WorkerRequest.model_validate_json((work / REQUEST_FILE).read_text(encoding="utf-8"))


def write_answer(work: Path, answer: WorkerAnswer) -> None:
    """Write answer.json in one step; the last thing that a worker does."""
    temporary = work / f".{ANSWER_FILE}.tmp"
    temporary.write_text(answer.model_dump_json(indent=1), encoding="utf-8")
    temporary.replace(work / ANSWER_FILE)


def read_answer(work: Path) -> WorkerAnswer:
    """Read a complete answer; raises DeviceError where there is none."""
    path = work / ANSWER_FILE
    if not path.is_file():
        raise DeviceError("the worker ended without an answer", "Look at its stderr above; run the stage again.")
    return WorkerAnswer.model_validate_json(path.read_text(encoding="utf-8"))

"""What goes to a device and what comes back: the plan of a benchmark, and the agent's events.

The plan is a JSON file in the session's folder on the device; events are the lines of its spool.
"""

import base64
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, computed_field

from pocketbert.params import Section
from pocketbert.params.delegation import Precision

Engine = Literal["litert", "onnxruntime", "pocketbert", "native"]
Accelerator = Literal["cpu", "gpu"]


class PlannedArtifact(Section):
    """A model and its rows, as paths on the device."""

    name: str
    engine: Engine
    model: str
    # An .npz of int32 arrays [rows, S], one an input.
    inputs: str
    accelerator: Accelerator = "cpu"
    # What a GPU computes in, and whether a driver in software will do.
    gpu_precision: Precision | None = None
    software_gpu: bool = False
    # Operators of a .tflite file: a runtime that hands all of them to the GPU names no number.
    total_ops: int | None = None
    # Files that the model needs beside it, by name; or those of a native runner.
    files: dict[str, str] = Field(default_factory=dict)
    # Of a model in parts: its manifest's entries (pocketbert.partition.manifest.PartFile).
    parts: list[dict[str, Any]] = Field(default_factory=list)
    # Of a native runner: its arguments with placeholders.
    command: list[str] = Field(default_factory=list)
    # Of LiteRT's benchmark_model: shapes and sizes in bytes of the inputs, which then lie in a file of raw rows.
    layer_shapes: list[list[int]] = Field(default_factory=list)
    layer_sizes: list[int] = Field(default_factory=list)


class Owner(Section):
    """The process for which a device is held."""

    host: str
    pid: int
    # In clock ticks since boot: tells a process from a later one of the same number.
    started: str | None


class Sustained(Section):
    """Artifacts that run without a pause after the rounds, one after another."""

    seconds: int = 0
    artifacts: list[str] = Field(default_factory=list)


class Plan(Section):
    """Everything that the agent needs to go on alone."""

    work: str
    agent: str
    interpreter: str
    environment: dict[str, str] = Field(default_factory=dict)
    owner: Owner
    # End with the owner; only where it is a process of the same machine.
    watch_owner: bool
    artifacts: list[PlannedArtifact]
    proof_rows: int
    accuracy_rows: int
    warmup: int
    threads: int
    runs: int
    rounds: int
    # Rounds are added up to this number while a median's interval is wider than `ci_width` (a share of the median).
    max_rounds: int
    ci_width: float | None
    budget_s: float
    timeout_s: float
    seed: int
    sustained: Sustained
    cool_down_s: float
    max_temperature_c: float | None
    governor: str | None
    sample_s: float = 1.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def keep(self) -> list[str]:
        """Names in the device's store that this plan uses."""
        used = [self.agent, *(path for a in self.artifacts for path in (a.model, a.inputs, *a.files.values()))]
        return [PurePosixPath(path).name for path in used]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Answer(_Record):
    """What one fresh process measured; None where a reading could not be had."""

    runtime: str
    accelerator: Accelerator
    # The GPU as its driver names it.
    gpu_adapter: str | None
    latencies_ms: list[float] = Field(min_length=1)
    # Logits of the first rows, float32 in base64, row after row.
    logits: str
    classes: int
    # On the device's monotonic clock, as in samples.
    started_s: float
    # Where a program tells no single runs: of how many `latencies_ms` holds the one median or mean.
    summary_runs: int | None = None
    # User and system time of all threads, and elapsed time, over the measured runs.
    cpu_s: float | None
    wall_s: float
    memory_baseline_bytes: int | None
    memory_peak_bytes: int | None
    memory_pss_bytes: int | None
    power_mean_mw: float | None
    temperature_start_c: float | None
    temperature_end_c: float | None
    delegated_ops: int | None
    partitions: int | None

    def read_logits(self) -> NDArray[np.float32]:
        """Logits, float32 [rows, classes]."""
        flat = np.frombuffer(base64.b64decode(self.logits), dtype="<f4")
        return flat.reshape(-1, self.classes)


class Sample(_Record):
    """One reading of all sensors, beside a measurement or between two; None where a sensor is silent."""

    at_s: float
    artifact: str | None = None
    round: int | None = None
    monotonic_s: float | None = None
    temperature_c: float | None = None
    power_mw: float | None = None
    cpu_mhz: float | None = None
    gpu_mhz: float | None = None
    gpu_load_percent: float | None = None
    throttle_events: float | None = None
    memory_bytes: int | None = None
    gpu_busy_ns: int | None = None


class HostFacts(_Record):
    """The machine that measures; None where it does not tell."""

    processor: str
    architecture: str
    cores: int
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    os: str
    kernel: str
    governor: str | None
    load_average_1min: float | None
    free_bytes: int
    python: str
    libc: str | None
    gpu_model: str | None
    gpu_driver: str | None

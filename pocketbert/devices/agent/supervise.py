"""A benchmark on the device: rounds of fresh processes in shuffled order, their results appended to a spool.

The plan is a file, the results are a file, and the process is detached: the host may come and go.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from .child import ChildFailed, run_child
from .files import process_started, read_json, write_json
from .governor import guard, restore_governors, set_governor
from .intervals import median_interval
from .lock import Lock
from .probe import read_facts
from .spool import SPOOL_FILE, Spool
from .telemetry import Sampler

BUSY, OWNER_GONE, FAILED = 75, 76, 1
# The start temperature counts as back when it is this near: sensors step in whole degrees.
_COOL_MARGIN_C = 2.0
_STOP_RESAMPLES = 400
# A pushed file that no plan asked for in this time is deleted.
_STORE_KEPT_S = 7 * 24 * 3600
# A session without a spool may be one whose agent starts right now.
_NOT_YET_STARTED_S = 60.0


class OwnerGone(Exception):
    """The process on this machine for which the benchmark is run has died."""


class Supervisor:
    """Carries out one plan (`pocketbert.devices.plan.Plan` describes its keys)."""

    def __init__(self, folder: Path, root: Path = Path("/")) -> None:
        self.folder, self.root = folder, root
        self.plan: dict[str, Any] = read_json(folder / "plan.json")
        self.work = Path(self.plan["work"])
        self.spool = Spool(folder)
        self.lock = Lock(self.work)
        self.sampler = Sampler(root)
        self.start_temperature = self.sampler.thermometer.read_c()
        self.latencies: dict[str, list[list[float]]] = {entry["name"]: [] for entry in self.plan["artifacts"]}
        self.failed: set[str] = set()
        self.deadline = time.monotonic() + self.plan["budget_s"]

    def run(self) -> int:
        """The whole benchmark; returns the exit code, which the spool holds too."""
        holder = self.lock.take({**self.plan["owner"], "session": self.folder.name})
        if holder is not None:
            self.spool.write("busy", owner=holder)
            self.spool.end(BUSY, "another benchmark holds the device")
            return BUSY
        try:
            self._clean()
            self._set_governor()
            self.spool.write("started", facts=self._facts(), sources=self.sampler.sources())
            self._measure_rounds()
            self._measure_sustained()
        except OwnerGone:
            self.spool.end(OWNER_GONE, "the process that asked for the benchmark is gone")
            return OWNER_GONE
        finally:
            restore_governors(self.work)
            self.lock.release()
        self.spool.end(0)
        return 0

    def _facts(self) -> dict[str, Any]:
        return read_facts(self.work, self.root)

    def _clean(self) -> None:
        """What sessions of killed agents left: this one holds the lock, so the others are over."""
        restore_governors(self.work)
        for other in (self.work / "sessions").iterdir():
            fresh = time.time() - other.stat().st_mtime < _NOT_YET_STARTED_S and not (other / SPOOL_FILE).exists()
            if other.name != self.folder.name and not fresh:
                shutil.rmtree(other, ignore_errors=True)
        for file in (self.work / "store").iterdir():
            if time.time() - file.stat().st_mtime > _STORE_KEPT_S and file.name not in self.plan["keep"]:
                file.unlink()

    def _set_governor(self) -> None:
        governor = self.plan["governor"]
        if governor is None:
            return
        guard(self.work)
        try:
            paths = set_governor(governor, self.work)
            self.spool.write("governor", governor=governor, paths=paths)
        except OSError as error:
            self.spool.write("warning", cause=f"the governor {governor!r} cannot be set: {error}")

    def _measure_rounds(self) -> None:
        plan, shuffler = self.plan, random.Random(self.plan["seed"])
        rounds = min(plan["rounds"], plan["runs"])
        for index in range(max(rounds, plan["max_rounds"])):
            names = [name for name in self.latencies if name not in self.failed]
            if index >= rounds:
                names = [name for name in names if self._is_unsure(name)]
                if not names or time.monotonic() > self.deadline:
                    return
            share = index % rounds
            runs = plan["runs"] * (share + 1) // rounds - plan["runs"] * share // rounds
            shuffler.shuffle(names)
            for name in names:
                # The sample that accuracy is taken of is run once.
                rows = max(plan["proof_rows"], plan["accuracy_rows"] if index == 0 else 0)
                self._measure(name, index, {"runs": runs, "logit_rows": rows})
            self.spool.write("round", index=index, rounds=rounds)

    def _is_unsure(self, name: str) -> bool:
        """Whether the interval of the median is wider than asked for (a share of the median)."""
        wanted = self.plan["ci_width"]
        if wanted is None:
            return False
        low, high = median_interval(self.latencies[name], self.plan["seed"], resamples=_STOP_RESAMPLES)
        return high - low > wanted * (low + high) / 2

    def _measure_sustained(self) -> None:
        sustained = self.plan["sustained"]
        for name in sustained["artifacts"]:
            if name not in self.failed:
                request = {"seconds": sustained["seconds"], "logit_rows": self.plan["proof_rows"]}
                self._measure(name, None, request)

    def _measure(self, name: str, index: int | None, request: dict[str, Any]) -> None:
        """One measurement; a failure is an event, and costs the artifact its later rounds."""
        entry = next(e for e in self.plan["artifacts"] if e["name"] == name)
        answer_path = self.folder / "answer.json"
        try:
            waited_s = self._cool_down()
            answer_path.unlink(missing_ok=True)
            write_json(self.folder / "request.json", {
                **entry, **request, "threads": self.plan["threads"], "warmup": self.plan["warmup"],
                "answer": str(answer_path), "parent": os.getpid(),
            })  # fmt: skip
            self._run_worker(name, index, request)
            answer = read_json(answer_path)
            if answer is None:
                raise ChildFailed("the worker ended without an answer")
        except ChildFailed as error:
            self.failed.add(name)
            self.spool.write("failed", artifact=name, round=index, cause=str(error))
            return
        if index is not None:
            self.latencies[name].append(answer["latencies_ms"])
        self.spool.write("measured", artifact=name, round=index, cooled_s=waited_s, answer=answer)

    def _run_worker(self, name: str, index: int | None, request: dict[str, Any]) -> None:
        command = [self.plan["interpreter"], self.plan["agent"], "measure", str(self.folder / "request.json")]
        environment = {
            # Vulkan's drivers complain where there is none, as in a session over a link.
            "XDG_RUNTIME_DIR": str(self.folder), **os.environ, **self.plan["environment"],
            # torch's OpenMP pool is sized at import; the others take the number as an argument.
            "OMP_NUM_THREADS": str(self.plan["threads"]), "USE_TF": "0", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip

        def tick(pid: int) -> None:
            self._tick(artifact=name, round=index, **self.sampler.sample(pid))

        timeout_s = self.plan["timeout_s"] + request.get("seconds", 0)
        run_child(command, environment, self.folder / "worker.log", timeout_s, self.plan["sample_s"], tick)

    def _tick(self, **sample: Any) -> None:
        """A sign of life, and what the sensors said."""
        self.lock.beat()
        self.spool.write("sample", **sample)
        owner = self.plan["owner"]
        if self.plan["watch_owner"] and process_started(owner["pid"]) != owner["started"]:
            raise OwnerGone

    def _cool_down(self) -> float:
        """Wait until the temperature of the start is back, as long as the plan allows; returns the seconds."""
        started, limit = time.monotonic(), self.plan["max_temperature_c"]
        while True:
            now, waited = self.sampler.thermometer.read_c(), time.monotonic() - started
            if now is None or self.start_temperature is None:
                return 0.0
            too_hot = limit is not None and now > limit
            if now <= self.start_temperature + _COOL_MARGIN_C and not too_hot:
                return waited
            if waited >= self.plan["cool_down_s"]:
                if too_hot:
                    raise ChildFailed(f"the device is too hot: {now:.0f} degrees, its limit is {limit:.0f}")
                return waited
            time.sleep(min(1.0, self.plan["cool_down_s"] - waited))
            self._tick(temperature_c=now)


def supervise(folder: Path) -> int:
    """Carry out the plan in a folder; whatever goes wrong is said in the spool, if the disk still takes it."""
    try:
        # A host that lost its link while it started the agent starts it again.
        (folder / "agent").touch(exist_ok=False)
    except FileExistsError:
        return 0
    supervisor = Supervisor(folder)
    try:
        return supervisor.run()
    except Exception as error:  # noqa: BLE001 - the host sees nothing of a traceback
        sys.stderr.write(f"{error!r}\n")
        supervisor.spool.end(FAILED, f"the agent failed: {error}"[:500])
        return FAILED

"""A device for the time of a benchmark: its files, its environment, and the agent that is started and followed."""

import json
import logging
import os
import platform
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pocketbert.devices.agent.files import process_started
from pocketbert.devices.agent.spool import EXIT_FILE, SPOOL_FILE
from pocketbert.devices.agent.supervise import BUSY
from pocketbert.devices.base import HostFacts, Owner, Plan
from pocketbert.devices.follow import Event, Patience, connect, follow, persist
from pocketbert.devices.links.base import Link
from pocketbert.devices.package import pack_agent
from pocketbert.devices.wheels import resolve_wheels
from pocketbert.errors import DeviceError

_COMMAND_TIMEOUT_S = 120.0
_INSTALL_TIMEOUT_S = 900.0
# A holder of the lock that is silent for so long is frozen: alive, it gives a sign of life every second.
_FROZEN_S = 120.0
_WAIT_PERIOD_S = 2.0

_log = logging.getLogger("pocketbert")


class DeviceSession:
    """A connected device with the agent on it. All files lie in its work folder."""

    def __init__(self, name: str, link: Link, work: str, python: str, patience: Patience | None = None) -> None:
        self.name, self.link, self.work, self.python = name, link, work, python
        self.patience = patience or Patience()
        self.agent = ""
        self.connected = False
        self.folder = f"{work}/sessions/{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(4)}"

    def __enter__(self) -> Self:
        """Connect and push the agent; raises DeviceError."""
        connect(self.link, self.patience)
        self.connected = True
        try:
            with tempfile.TemporaryDirectory(prefix="pocketbert-agent-") as scratch:
                packed = pack_agent(Path(scratch))
                self.agent = f"{self.work}/store/{packed.name}"
                self.push(packed, self.agent)
        except BaseException:
            self.link.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()

    def push(self, source: Path, target: str) -> None:
        """Copy a file to the device, unless it is there; over a link that may break."""
        persist(self.link, self.patience, lambda: self.link.push(source, target))

    def store(self, source: Path, md5: str) -> str:
        """Push a file under the name of its content; returns its path on the device."""
        target = f"{self.work}/store/{md5}{source.suffix}"
        self.push(source, target)
        return target

    def make_executable(self, paths: Sequence[str]) -> None:
        """Let programs that were pushed be run; raises DeviceError."""
        if not paths:
            return
        done = persist(self.link, self.patience, lambda: self.link.run(["chmod", "700", *paths], timeout_s=30.0))
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise DeviceError(f"{self.name}: chmod failed: {said[:300]}", "Choose a work folder that allows programs.")

    def ask(self, *arguments: str, interpreter: str | None = None, timeout_s: float = _COMMAND_TIMEOUT_S) -> Any:
        """One of the agent's commands that answer with JSON; raises DeviceError."""
        argv = [interpreter or self.python, self.agent, *arguments]
        done = persist(self.link, self.patience, lambda: self.link.run(argv, timeout_s=timeout_s))
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        if done.returncode != 0 or not lines:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            reason = said[-1][:300] if said else f"exit code {done.returncode}"
            raise DeviceError(
                f"the agent cannot run on {self.name} with {self.python}: {reason}",
                "It needs Python 3.9 or newer: name one as `python` in devices.yaml.",
            )
        return json.loads(lines[-1])

    def probe(self, interpreter: str | None = None) -> dict[str, Any]:
        """What the device says about itself (`pocketbert.devices.agent.probe`)."""
        return dict(self.ask("probe", self.work, interpreter=interpreter))

    def clock_s(self) -> float:
        """The device's clock, in seconds since the epoch."""
        return float(self.ask("clock")["clock_s"])

    def owner(self) -> dict[str, Any] | None:
        """Who holds the device now (`pocketbert.devices.agent.lock.read_owner`)."""
        owner: dict[str, Any] | None = self.ask("status", self.work)["owner"]
        return owner

    def install(self, engines: Sequence[str]) -> tuple[str, dict[str, str]]:
        """Bring the engines' wheels along; returns the environment's interpreter and variables."""
        answer = self.ask("probe", self.work)
        facts = HostFacts.model_validate({key: answer[key] for key in HostFacts.model_fields})
        wheels = resolve_wheels(facts, engines)
        # The cache's folder is named by what was asked for and of which machine.
        target = f"{self.work}/environments/{wheels[0].parent.name}"
        pushed = []
        for wheel in wheels:
            pushed.append(f"{target}-wheels/{wheel.name}")
            self.push(wheel, pushed[-1])
        answer = self.ask("install", target, *pushed, timeout_s=_INSTALL_TIMEOUT_S)
        return str(answer.pop("interpreter")), {str(k): str(v) for k, v in answer.items()}

    def run(self, plan: Plan, wait_s: float) -> Iterator[Event]:
        """Start the agent on a plan and yield its events; a device that is in use is waited for.

        Raises DeviceError where the agent dies, freezes or fails, and where the device stays in use.
        """
        deadline = time.monotonic() + wait_s
        while True:
            self._start(plan)
            busy: Event | None = None
            for event in self._events():
                if event["event"] == "busy":
                    busy = event
                elif event["event"] != "end":
                    yield event
                elif event["code"] not in (0, BUSY):
                    raise DeviceError(f"{self.name}: {event['error']}", "Run the stage again.")
            if busy is None:
                return
            self._make_way(busy["owner"], time.monotonic() < deadline)

    def clear(self) -> None:
        """End the agent with all that it started, and delete what it left."""
        self.ask("clear", self.work)

    def _start(self, plan: Plan) -> None:
        with tempfile.TemporaryDirectory(prefix="pocketbert-plan-") as scratch:
            file = Path(scratch, "plan.json")
            file.write_text(plan.model_dump_json(), encoding="utf-8")
            self.folder = f"{self.work}/sessions/{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(4)}"
            self.push(file, f"{self.folder}/plan.json")
        argv = [self.python, self.agent, "run", self.folder]
        environment: Mapping[str, str] = {"PYTHONDONTWRITEBYTECODE": "1"}
        persist(self.link, self.patience, lambda: self.link.start(argv, environment=environment, folder=self.folder))

    def _events(self) -> Iterator[Event]:
        ended = False
        try:
            spool, end = f"{self.folder}/{SPOOL_FILE}", f"{self.folder}/{EXIT_FILE}"
            for event in follow(self.link, spool, end, self.patience, self._look):
                ended = ended or event["event"] == "end"
                yield event
        finally:
            # An error here, or a reader that has enough, ends the agent too.
            if not ended:
                self._clear_quietly()

    def _look(self) -> None:
        """Tell a slow agent from a dead or frozen one; raises DeviceError for the latter two."""
        owner = self.ask("status", self.work)["owner"]
        if owner is None or owner.get("session") != self.folder.rpartition("/")[2]:
            said = persist(self.link, self.patience, lambda: self.link.read(f"{self.folder}/stderr", 0, 4096))
            last = said.decode(errors="replace").strip().splitlines()
            free = int(self.ask("probe", self.work)["free_bytes"])
            full = f", {free >> 20} MB free on its disk"
            reason = last[-1][:300] if last else f"it left no word{full}"
            raise DeviceError(
                f"the agent on {self.name} died: {reason}",
                "It may have been killed for memory, or the device restarted or its disk is full: look, and run again.",
            )
        if owner["silent_s"] > self.patience.silence_s:
            raise DeviceError(
                f"the agent on {self.name} is frozen: no sign of life for {owner['silent_s']:.0f} s",
                "It was ended. Run the stage again.",
            )

    def _make_way(self, owner: dict[str, Any], may_wait: bool) -> None:
        """Clear what a killed process of this machine, or a frozen agent, left; wait for anyone else or raise."""
        dead_here = owner.get("host") == platform.node() and process_started(int(owner["pid"])) != owner["started"]
        if dead_here or owner.get("silent_s", 0.0) > _FROZEN_S:
            _log.warning("%s: ending the agent that a killed process left %.0f s ago", self.name, owner["age_s"])
            self.clear()
        elif may_wait:
            _log.info("%s is in use by process %s on %s", self.name, owner.get("pid"), owner.get("host"))
            time.sleep(_WAIT_PERIOD_S)
        else:
            holder = f"process {owner.get('pid')} of {owner.get('host')}"
            raise DeviceError(
                f"{self.name} is in use: {holder} has it for {owner['age_s']:.0f} s now",
                "Run the stage again when it is free, or raise limits.wait_s in devices.yaml.",
            )

    def _clear_quietly(self) -> None:
        try:
            self.clear()
        except DeviceError as error:
            # What went wrong first is what counts; the next benchmark clears what is left.
            _log.warning("%s: the agent could not be ended: %s", self.name, error)


def this_process() -> Owner:
    """The owner that a plan made here has."""
    return Owner(host=platform.node(), pid=os.getpid(), started=process_started(os.getpid()))

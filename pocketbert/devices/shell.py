"""A device without Python: the host takes the agent's part, and a program of the user's measures there.

Each measurement is detached and leaves its output and its exit code in files: a cut link loses nothing here either.
"""

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

from pocketbert.devices.agent.child import ChildFailed
from pocketbert.devices.agent.engine import Refused
from pocketbert.devices.agent.files import process_started, write_json
from pocketbert.devices.agent.native import fill_command, read_answer, require_success
from pocketbert.devices.agent.spool import EXIT_FILE, SPOOL_FILE
from pocketbert.devices.agent.supervise import Supervisor
from pocketbert.devices.agent.telemetry import Sampler
from pocketbert.devices.base import Plan
from pocketbert.devices.benchmark_tool import RUN_ROWS, Layers, make_answer
from pocketbert.devices.follow import Event, Patience, connect, follow, persist
from pocketbert.devices.links.base import Link
from pocketbert.devices.links.local import LocalLink
from pocketbert.devices.session import DeviceSession
from pocketbert.devices.snapshot import read_remote_facts, take_snapshot
from pocketbert.errors import DeviceError, PocketBertError

# A program cannot be told from its children otherwise when its time is up: it leads their session.
_RUN = 'echo $$ > pid; "$@" > answer 2> said; echo $? > code.part; mv code.part code'
_KILL = 'kill -9 -"$(cat "$1/pid")"'
# A link that points at its owner's description: made in one step, or not at all.
_LOCK = 'mkdir -p "$1"; ln -s "$2" "$1/owner" 2>/dev/null && exec echo free; readlink "$1/owner"'
_TIMEOUT_S = 30.0
_PIECE_BYTES = 1 << 20
_WAIT_PERIOD_S = 2.0


class ShellSession(DeviceSession):
    """Implements the part of `DeviceSession` that a benchmark uses, over plain commands."""

    def __init__(self, name: str, link: Link, work: str, patience: Patience | None = None) -> None:
        super().__init__(name, link, work, "sh", patience)

    def __enter__(self) -> Self:
        """Connect; there is no agent to push."""
        connect(self.link, self.patience)
        self.connected = True
        return self

    def probe(self, interpreter: str | None = None) -> dict[str, Any]:  # noqa: ARG002
        """What the device's files and properties say, in the words of the agent's probe."""
        with tempfile.TemporaryDirectory(prefix="pocketbert-snapshot-") as scratch:
            facts = self.read_facts(Path(scratch))
            sources = Sampler(Path(scratch)).sources()
            zones = {
                (zone / "type").read_text().strip(): int((zone / "temp").read_text()) / 1000
                for zone in sorted(Path(scratch).glob("sys/class/thermal/thermal_zone*"))
                if (zone / "temp").exists() and (zone / "type").exists()
            }
            telemetry = {name: path and path.replace(scratch, "") for name, path in sources.items()}
        return {**facts, "thermal_zones_c": zones, "telemetry": telemetry, "imports": {}}

    def snapshot(self, root: Path) -> dict[str, str]:
        """As `take_snapshot`, over a link that may break."""
        return persist(self.link, self.patience, lambda: take_snapshot(self.link, root))

    def read_facts(self, root: Path) -> dict[str, Any]:
        """As `read_remote_facts`, over a link that may break."""
        return persist(self.link, self.patience, lambda: read_remote_facts(self.link, root, self.work))

    def clock_s(self) -> float:
        """In whole seconds: toybox's date knows no fractions."""
        return float(self._ask("date +%s"))

    def owner(self) -> dict[str, Any] | None:
        """Who holds the device now."""
        said = self._ask('readlink "$1/owner"', self.work)
        return json.loads(said) if said else None

    def run(self, plan: Plan, wait_s: float) -> Iterator[Event]:
        """Measure and yield the agent's events; a device that is in use is waited for. Raises DeviceError."""
        self._lock(plan, wait_s)
        try:
            with tempfile.TemporaryDirectory(prefix="pocketbert-shell-") as scratch:
                folder = Path(scratch, "sessions", "own")
                folder.mkdir(parents=True)
                write_json(folder / "plan.json", {**plan.model_dump(), "work": scratch, "keep": plan.keep})
                yield from self._follow(_Hands(folder, self))
        finally:
            self._ask('rm -rf "$1/owner" "$1/sessions"', self.work)

    def _follow(self, hands: "_Hands") -> Iterator[Event]:
        thread = threading.Thread(target=hands.run_quietly, daemon=True)
        thread.start()
        spool, end = str(hands.folder / SPOOL_FILE), str(hands.folder / EXIT_FILE)
        try:
            for event in follow(LocalLink(), spool, end, Patience(0.1, 3600.0, 0.0), lambda: None):
                if event["event"] != "end":
                    yield event
                elif event["code"] != 0:
                    raise DeviceError(f"{self.name}: {event['error']}", "Run the stage again.")
        finally:
            hands.stopped = True
            thread.join()

    def _lock(self, plan: Plan, wait_s: float) -> None:
        owner, deadline = plan.owner, time.monotonic() + wait_s
        mine = owner.model_dump_json()
        # Mine it is, too, where the link broke before the answer came.
        while (said := self._ask(_LOCK, self.work, mine)) not in ("free", mine):
            holder = json.loads(said)
            if holder["host"] == owner.host and process_started(int(holder["pid"])) != holder["started"]:
                self._ask('rm -f "$1/owner"', self.work)
            elif time.monotonic() > deadline:
                raise DeviceError(
                    f"{self.name} is in use by process {holder['pid']} of {holder['host']}",
                    f"Run the stage again when it is free; if that process is gone, delete {self.work}/owner there.",
                )
            else:
                time.sleep(_WAIT_PERIOD_S)

    def _ask(self, script: str, *arguments: str) -> str:
        argv = ["sh", "-c", script, "sh", *arguments]
        done = persist(self.link, self.patience, lambda: self.link.run(argv, timeout_s=_TIMEOUT_S))
        return done.stdout.decode(errors="replace").strip()


class _Hands(Supervisor):
    """The agent's rounds, cooling and spool, with the device at arm's length."""

    def __init__(self, folder: Path, session: ShellSession) -> None:
        self.session, self.stopped = session, False
        session.snapshot(folder / "root")
        super().__init__(folder, folder / "root")

    def run_quietly(self) -> None:
        """Run; what goes wrong is the spool's last word."""
        try:
            self.run()
        except (PocketBertError, OSError, ValueError) as error:
            self.spool.end(1, str(error))

    def _facts(self) -> dict[str, Any]:
        return self.session.read_facts(self.root)

    def _clean(self) -> None:
        """Nothing lies here that another session left."""

    def _set_governor(self) -> None:
        if self.plan["governor"] is not None:
            self.spool.write("warning", cause="the governor is set only where the agent runs on the device")

    def _cool_down(self) -> float:
        self.session.snapshot(self.root)
        return super()._cool_down()

    def _tick(self, **sample: Any) -> None:
        if self.stopped:
            raise ChildFailed("the benchmark was ended")
        self.session.snapshot(self.root)
        super()._tick(**{**sample, **self.sampler.sample()})

    def _run_worker(self, name: str, index: int | None, request: dict[str, Any]) -> None:
        """Start the program, wait for its exit code, and read its answer; raises ChildFailed."""
        asked = json.loads((self.folder / "request.json").read_text(encoding="utf-8"))
        started_s, tick = time.monotonic(), partial(self._tick, artifact=name, round=index)
        try:
            measure = self._measure_rows if asked["layer_shapes"] else self._measure_once
            answer = measure(asked, started_s, self.plan["timeout_s"] + request.get("seconds", 0), tick)
        except Refused as error:
            raise ChildFailed(str(error)) from error
        answer["temperature_end_c"] = self.sampler.thermometer.read_c()
        write_json(self.folder / "answer.json", answer)

    def _measure_once(
        self, asked: dict[str, Any], started_s: float, limit_s: float, tick: Callable[[], None]
    ) -> dict[str, Any]:
        """A program that measures and proves in one; raises Refused and ChildFailed."""
        command = fill_command(asked)
        place, code = self._finish(_RUN, command, limit_s, tick)
        return read_answer(
            command[0], code, self._read(f"{place}/answer"), self._read(f"{place}/said"), started_s, None
        )

    def _measure_rows(
        self, asked: dict[str, Any], started_s: float, limit_s: float, tick: Callable[[], None]
    ) -> dict[str, Any]:
        """LiteRT's benchmark_model: it times the first row, and is then run once for each other row to prove."""
        layers = Layers(asked["layer_shapes"], asked["layer_sizes"])
        sizes, rows, logits, printed = " ".join(map(str, layers.sizes)), int(asked["logit_rows"]), b"", b""
        once = {**asked, "runs": 1, "seconds": 0, "warmup": 0}
        for request, first, end in ((asked, 0, 1), (once, 1, rows)):
            command = [*fill_command(request), *layers.flags()]
            place, code = self._finish(
                RUN_ROWS, [asked["inputs"], sizes, str(first), str(end), *command], limit_s, tick
            )
            said = self._read(f"{place}/said")
            require_success(command[0], code, said)
            printed = printed or self._read(f"{place}/answer") + b"\n" + said
            logits += self._read(f"{place}/logits")
        return make_answer(printed, logits, rows, started_s)

    def _finish(self, script: str, arguments: list[str], limit_s: float, tick: Callable[[], None]) -> tuple[str, int]:
        """Start a script detached, and wait for its exit code; returns its folder too. Raises ChildFailed."""
        session, place = self.session, f"{self.session.work}/sessions/{time.time_ns()}"
        argv = ["sh", "-c", script, "sh", *arguments]
        persist(session.link, session.patience, lambda: session.link.start(argv, environment={}, folder=place))
        deadline = time.monotonic() + limit_s
        while not (code := self._read(f"{place}/code")):
            if time.monotonic() > deadline:
                session._ask(_KILL, place)
                raise ChildFailed(f"the program did not end within {limit_s:g} s and was killed")
            time.sleep(self.plan["sample_s"])
            tick()
        return place, int(code)

    def _read(self, path: str) -> bytes:
        """A whole file of the device's."""
        link, pieces = self.session.link, [b""]
        while True:
            offset = sum(map(len, pieces))
            pieces.append(persist(link, self.session.patience, partial(link.read, path, offset, _PIECE_BYTES)))
            if not pieces[-1]:
                return b"".join(pieces)

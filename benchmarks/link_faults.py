"""What breaks a link, at moments of chance: each row counts what was lost, doubled or wrong."""

import json
import random
import shutil
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.link_servers import started
from pocketbert.devices.follow import Event, Patience
from pocketbert.devices.links.base import LinkLost
from pocketbert.errors import DeviceError
from tests.devices.agents import make_plan, open_session, simulated
from tests.devices.links.processes import slow_wire
from tests.devices.links.sshd import Sshd

MEGABYTE = 1 << 20
# A file takes two seconds on this wire.
WIRE_BYTES_S = 16e6
FILE_BYTES = 32_000_000
LINES = 60
LINE_S = 0.03


@dataclass
class Row:
    """The outcome of one kind of fault at all its moments."""

    wrong: int = 0
    told_s: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self, name: str, moments: int) -> str:
        """A line of a Markdown table."""
        told = f"{statistics.median(self.told_s):.1f} / {max(self.told_s):.1f}" if self.told_s else "-"
        return f"| {name} | {moments} | {self.wrong} | {told} | {'; '.join(self.notes)} |"


def at(delay_s: float, what: Callable[[], object]) -> threading.Timer:
    """Do something later, beside what goes on."""
    timer = threading.Timer(delay_s, what)
    timer.start()
    return timer


def break_pushes(kind: str, how: str, moments: int, chance: random.Random) -> Row:
    """Cut or freeze the device while a file is on its way, then push again: the content must be right."""
    row, resumed = Row(), 0
    with started(kind) as server, slow_wire(server.port, WIRE_BYTES_S) as wire:
        for moment in range(moments):
            file = server.folder / "file"
            file.write_bytes(chance.randbytes(FILE_BYTES))
            target = server.device / f"{moment}" / "file"
            frozen: list[int] = []
            broken_at = [0.0]

            def disturb(frozen: list[int] = frozen, broken_at: list[float] = broken_at) -> None:
                broken_at[0] = time.monotonic()
                frozen.extend(server.freeze() if how == "freeze" else [])
                if how == "cut":
                    server.cut()

            link = server.link(port=wire) if isinstance(server, Sshd) else server.link(serial=f"127.0.0.1:{wire}")
            link.connect()
            timer = at(chance.uniform(0.0, 2.5), disturb)
            try:
                link.push(file, str(target))
            except LinkLost:
                row.told_s.append(time.monotonic() - broken_at[0])
            timer.join()
            server.thaw(frozen)
            link.close()
            parts = list(target.parent.glob(".*.part")) if target.parent.exists() else []
            resumed += sum(part.stat().st_size for part in parts)
            link = server.link()
            link.connect()
            link.push(file, str(target))
            link.close()
            time.sleep(0.2)
            whole = target.read_bytes() == file.read_bytes() and len(list(target.parent.iterdir())) == 1
            row.wrong += not whole
            shutil.rmtree(target.parent)
    row.notes.append(f"{100 * resumed / (moments * FILE_BYTES):.0f} % of all bytes were not sent again")
    return row


def break_following(kind: str, how: str, moments: int, chance: random.Random) -> Row:
    """Cut or freeze the device while a detached command writes; what is read by offset must be whole and single."""
    row = Row()
    count = f"echo begun >> starts; for i in $(seq {LINES}); do echo line $i; sleep {LINE_S}; done"
    with started(kind) as server:
        for moment in range(moments):
            folder = server.device / f"{moment}"
            link = server.link()
            link.connect()
            read, done, frozen = b"", False, list[int]()
            chosen = chance.uniform(0.0, LINES * LINE_S)
            broken_at = time.monotonic() + chosen

            def disturb(frozen: list[int] = frozen) -> None:
                if how == "cut":
                    server.cut()
                else:
                    frozen.extend(server.freeze())

            timer = at(chosen, disturb)
            begun = False
            while not done:
                try:
                    if not begun:
                        link.start(["sh", "-c", count], environment={}, folder=str(folder))
                        begun = True
                    read += link.read(str(folder / "stdout"), len(read), 100)
                    done = read.endswith(f"line {LINES}\n".encode())
                except LinkLost:
                    row.told_s.append(max(0.0, time.monotonic() - broken_at))
                    server.thaw(frozen)
                    with_patience(link.connect)
            timer.join()
            server.thaw(frozen)
            link.close()
            expected = "".join(f"line {i}\n" for i in range(1, LINES + 1)).encode()
            row.wrong += read != expected or (folder / "starts").read_text(encoding="utf-8") != "begun\n"
    return row


def break_benchmarks(kind: str, moments: int, chance: random.Random) -> Row:
    """Cut the device in a benchmark by the real agent: what the host heard must be what the agent said, once."""
    row = Row()
    patience = Patience(poll_s=0.1, silence_s=20.0, reconnect_s=60.0)
    with started(kind) as server:
        for moment in range(moments):
            events = list[Event]()
            with open_session(server.device / f"{moment}", server.link(), patience) as session:
                # A device that cannot be reached at the start is down; from here on it is waited for.
                cuts = [at(chance.uniform(0.0, 5.0), server.cut) for _ in range(2)]
                plan = make_plan(session, [simulated(name, sleep_s=0.3) for name in "abc"])
                events = list(session.run(plan, 0))
            for timer in cuts:
                timer.join()
            spool = Path(session.folder, "spool.jsonl").read_text(encoding="utf-8")
            measured = sorted((e["artifact"], e["round"]) for e in events if e["event"] == "measured")
            whole = measured == [(name, index) for name in "abc" for index in (0, 1)]
            row.wrong += not whole or events != [json.loads(line) for line in spool.splitlines()]
    return row


def with_patience(connect: Callable[[], None]) -> None:
    """Connect again until it works, as a session does."""
    for _ in range(20):
        try:
            connect()
        except LinkLost:
            time.sleep(0.5)
        else:
            return
    connect()


def fill_disks(kind: str, moments: int, chance: random.Random) -> Row:
    """Let something else fill the device's disk during a push: it must be told, and nothing may be left."""
    row, told = Row(), 0
    with started(kind, small_disk="24m") as server, slow_wire(server.port, WIRE_BYTES_S) as wire:
        link = server.link(port=wire) if isinstance(server, Sshd) else server.link(serial=f"127.0.0.1:{wire}")
        other = server.link()
        link.connect()
        other.connect()
        file = server.folder / "file"

        def fill() -> None:
            other.run(["sh", "-c", 'cat /dev/zero > "$1"', "sh", str(server.small / "other")], timeout_s=30)

        for _ in range(moments):
            file.write_bytes(chance.randbytes(16 * MEGABYTE))
            timer = at(chance.uniform(0.0, 1.0), fill)
            try:
                link.push(file, str(server.small / "file"))
            except DeviceError as error:
                told += "no space left" in error.cause
                if "no space left" not in error.cause:
                    row.wrong += 1
                    row.notes.append(error.cause)
            timer.join()
            other.run(["rm", "-f", str(server.small / "other")], timeout_s=30)
            link.push(file, str(server.small / "file"))
            listed = other.run(["ls", "-A", str(server.small)], timeout_s=30).stdout
            row.wrong += listed != b"file\n" or link.read(str(server.small / "file"), 0, 1 << 30) != file.read_bytes()
            other.run(["rm", "-f", str(server.small / "file")], timeout_s=30)
        link.close()
        other.close()
    row.notes.append(f"{told} told as a full disk, {moments - told} were through before")
    return row

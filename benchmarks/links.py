"""What breaks a link, at moments of chance, and what it costs; how fast files go.

    python benchmarks/links.py [--kinds ssh,adb] [--moments 20] [--seed 13]

Against a real sshd and a real adbd on loopback (tests/devices/links: they need openssh-server, and adbd as fetched by
tests/devices/links/fetch_adbd.sh). Each row counts what was lost, doubled or wrong; 0 is the only good figure.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pocketbert.devices.follow import Event, Patience  # noqa: E402
from pocketbert.devices.links.adb_server import adb_program  # noqa: E402
from pocketbert.devices.links.base import Finished, LinkLost  # noqa: E402
from pocketbert.errors import DeviceError  # noqa: E402
from pocketbert.provenance import processor_name  # noqa: E402
from tests.devices.agents import make_plan, open_session, simulated  # noqa: E402
from tests.devices.links.adbd import Adbd  # noqa: E402
from tests.devices.links.processes import slow_wire  # noqa: E402
from tests.devices.links.sshd import Sshd  # noqa: E402

Server = Sshd | Adbd
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


@contextmanager
def started(kind: str, small_disk: str | None = None) -> Iterator[Server]:
    """A server of its own in a scratch folder."""
    folder = Path(tempfile.mkdtemp(prefix="pocketbert-links-"))
    server: Server = (Sshd if kind == "ssh" else Adbd)(folder, small_disk=small_disk)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


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


def compare_speed(kind: str, rounds: int = 5) -> str:
    """100 MB by our push and by the plain tool, in turns; a line with the medians and their ratio."""
    ours, sent, plain = list[float](), list[float](), list[float]()
    with started(kind) as server:
        file = server.folder / "file"
        file.write_bytes(os.urandom(100_000_000))
        link = server.link()
        link.connect()
        send = link.send

        def timed(argv: Sequence[str], stream: BinaryIO, size: int) -> Finished:
            began = time.monotonic()
            done = send(argv, stream, size)
            sent.append(time.monotonic() - began)
            return done

        link.send = timed  # type: ignore[method-assign]  # to see how much of a push is hashing
        for _ in range(rounds):
            began = time.monotonic()
            link.push(file, str(server.device / "ours"))
            ours.append(time.monotonic() - began)
            began = time.monotonic()
            copy_plainly(server, file)
            plain.append(time.monotonic() - began)
            (server.device / "ours").unlink()
            (server.device / "plain").unlink()
        link.close()
    tool = "scp" if kind == "ssh" else "adb push"
    speeds = [f"{100 / statistics.median(times):.0f} MB/s" for times in (ours, sent, plain)]
    ratios = [statistics.median(p / o for o, p in zip(times, plain, strict=True)) for times in (ours, sent)]
    return (
        f"{kind}: push {speeds[0]}, of which sending {speeds[1]}; {tool} {speeds[2]}; "
        f"ratio {ratios[0]:.0%} with both hashes, {ratios[1]:.0%} without (medians of {rounds} rounds)"
    )


def copy_plainly(server: Server, file: Path) -> None:
    """scp or `adb push`, started as a user would."""
    target = str(server.device / "plain")
    if isinstance(server, Sshd):
        known = server.folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:{server.port} {server.host_key()}\n", encoding="utf-8")
        command = [
            "scp", "-q", "-F", "none", "-P", str(server.port), "-i", str(server.user_key),
            "-o", f"UserKnownHostsFile={known}", str(file), f"127.0.0.1:{target}",
        ]  # fmt: skip
        subprocess.run(command, check=True)
        return
    link = server.link()
    link.connect()
    port = link.server_port
    subprocess.run(
        [adb_program(), "-P", str(port), "-s", link.params.serial, "push", str(file), target],
        check=True, capture_output=True,
    )  # fmt: skip
    link.close()


def main() -> None:
    """Print the tables of docs/reliability.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default="ssh,adb")
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=13)
    arguments = parser.parse_args()
    chance, moments = random.Random(arguments.seed), arguments.moments
    print(f"{processor_name()}, {os.cpu_count()} cores, seed {arguments.seed}\n")
    print("| | moments | wrong | told after, median / longest (s) | |\n| --- | --- | --- | --- | --- |")
    wrong = 0
    for kind in arguments.kinds.split(","):
        runs: dict[str, Callable[[str], Row]] = {
            "cut while pushing": lambda k: break_pushes(k, "cut", moments, chance),
            "frozen while pushing": lambda k: break_pushes(k, "freeze", moments, chance),
            "cut while following": lambda k: break_following(k, "cut", moments, chance),
            "frozen while following": lambda k: break_following(k, "freeze", moments, chance),
            "cut twice in a benchmark": lambda k: break_benchmarks(k, moments, chance),
            "disk filled while pushing": lambda k: fill_disks(k, moments, chance),
        }
        for name, run in runs.items():
            row = run(kind)
            wrong += row.wrong
            print(row.text(f"{kind}: {name}", moments), flush=True)
    print()
    for kind in arguments.kinds.split(","):
        print(compare_speed(kind), flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

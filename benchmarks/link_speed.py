"""How fast files go over a link, against the plain tool."""

import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from benchmarks.link_servers import Server, started
from pocketbert.devices.links.adb_server import adb_program
from pocketbert.devices.links.base import Finished
from tests.devices.links.sshd import Sshd


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

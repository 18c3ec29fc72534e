"""A measurement by a program of the user's: a list of arguments with placeholders, and JSON as its last line."""

from __future__ import annotations

import base64
import json
import os
import re
import struct
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from .child import die_with
from .engine import Refused

_PLACEHOLDER = re.compile(r"\{([\w:]+)\}")


def measure_natively(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run the program of `request["command"]` to its end and read what it measured; raises Refused."""
    started_s, before = time.monotonic(), os.times()
    command = fill_command(request)
    own = os.getpid()
    with subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        # Whoever ends this process when its time is up ends the program too.
        preexec_fn=lambda: die_with(own),
    ) as child:  # fmt: skip
        stdout, stderr = child.communicate()
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return read_answer(command[0], child.returncode, stdout, stderr, started_s, cpu_s)


def fill_command(request: Mapping[str, Any]) -> list[str]:
    """The template with its placeholders replaced, in one pass; other braces stay as they are."""
    values = {name: str(request[name]) for name in ("model", "inputs", "threads", "warmup")}
    # Of these one is 0: runs in a round, seconds where it runs without a pause.
    values.update({name: str(request.get(name, 0)) for name in ("runs", "seconds")})
    values["rows"] = str(request["logit_rows"])
    values.update({f"file:{name}": path for name, path in request["files"].items()})
    return [_PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), word) for word in request["command"]]


def read_answer(
    program: str, returncode: int, stdout: bytes, stderr: bytes, started_s: float, cpu_s: float | None
) -> dict[str, Any]:
    """What the program measured, as an answer of the agent's; raises Refused."""
    require_success(program, returncode, stderr)
    said = _last_json(stdout.decode(errors="replace"), program)
    logits = said.get("logits") or []
    if not logits:
        raise Refused(f"{program} gave no logits: a latency without the proof of its model is no result")
    flat = [float(value) for row in logits for value in row]
    return {
        "runtime": str(said.get("runtime") or program),
        "accelerator": said.get("accelerator") or "cpu",
        "gpu_adapter": said.get("gpu_adapter"),
        "latencies_ms": [float(value) for value in said["latencies_ms"]],
        "logits": base64.b64encode(struct.pack(f"<{len(flat)}f", *flat)).decode(),
        "classes": len(logits[0]),
        "started_s": started_s,
        # Of the whole program, loading included, where it does not say better.
        "wall_s": said.get("wall_s") or time.monotonic() - started_s,
        "cpu_s": said.get("cpu_s") or cpu_s,
        "memory_baseline_bytes": None,
        "memory_peak_bytes": said.get("memory_peak_bytes"),
        "memory_pss_bytes": None,
        "power_mean_mw": None,
        "temperature_start_c": None,
        "temperature_end_c": None,
        "delegated_ops": said.get("delegated_ops"),
        "partitions": said.get("partitions"),
    }


def require_success(program: str, returncode: int, stderr: bytes) -> None:
    """Raises Refused with the last line that a failed program said."""
    if returncode != 0:
        lines = stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Refused(f"{program} failed with exit code {returncode}: {lines[-1][:300]}")


def _last_json(stdout: str, program: str) -> dict[str, Any]:
    for line in reversed(stdout.strip().splitlines()):
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict) and document.get("latencies_ms"):
            return document
    raise Refused(f"{program} printed no line of JSON with latencies_ms")

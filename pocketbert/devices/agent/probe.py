"""What a device says about itself when it is asked."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .files import kib_field, read_int, read_text
from .telemetry import Sampler, thermal_zones

ROOT = Path("/")
_PACKAGES = {"litert": ("ai_edge_litert.interpreter", "ai-edge-litert"), "onnxruntime": ("onnxruntime", "onnxruntime")}


def read_facts(work: Path, root: Path = ROOT) -> dict[str, Any]:
    """The machine as it is now; None where it does not tell."""
    load = read_text(root / "proc/loadavg")
    space = shutil.disk_usage(next(p for p in (work, *work.parents) if p.exists()))
    governor = read_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "processor": processor_name(root),
        "architecture": platform.machine(),
        "cores": cores,
        "memory_total_bytes": kib_field(root / "proc/meminfo", "MemTotal"),
        "memory_available_bytes": kib_field(root / "proc/meminfo", "MemAvailable"),
        "os": os_name(root),
        "kernel": platform.release(),
        "governor": governor,
        "load_average_1min": float(load.split()[0]) if load else None,
        "free_bytes": space.free,
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "gpu_model": gpu_model(root),
        "gpu_driver": gpu_driver(root),
    }


def read_probe(work: Path, root: Path = ROOT) -> dict[str, Any]:
    """Facts, thermal zones, telemetry sources, the clock, and which runtimes this interpreter imports."""
    zones = {read_text(z / "type") or z.name: (read_int(z / "temp") or 0) / 1000 for z in thermal_zones(root)}
    return {
        **read_facts(work, root),
        "thermal_zones_c": zones,
        "telemetry": Sampler(root).sources(),
        "imports": {name: _imports(module, package) for name, (module, package) in _PACKAGES.items()},
    }


def processor_name(root: Path = ROOT) -> str:
    """The processor's own name; on boards that of the board, from the device tree; else the architecture."""
    info = read_text(root / "proc/cpuinfo") or ""
    for wanted in ("model name", "Hardware"):
        for line in info.splitlines():
            key, _, value = line.partition(":")
            if key.strip() == wanted and value.strip():
                return value.strip()
    board = read_text(root / "proc/device-tree/model")
    return board.strip("\0") if board else platform.machine()


def os_name(root: Path = ROOT) -> str:
    """The distribution's own name, else the system's."""
    for line in (read_text(root / "etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip().strip('"')
    return platform.platform()


def gpu_model(root: Path = ROOT) -> str | None:
    """What Arm's driver calls the GPU, for instance "Mali-G610 4 cores r0p0 0xA867"; None without that driver."""
    return read_text(root / "sys/class/misc/mali0/device/gpuinfo")


def gpu_driver(root: Path = ROOT) -> str | None:
    """The kernel driver behind the GPU: mali (kbase), kgsl, or the one of the first render node."""
    if (root / "sys/class/misc/mali0").exists():
        return "mali"
    if (root / "sys/class/kgsl/kgsl-3d0").exists():
        return "kgsl"
    for node in sorted(root.glob("sys/class/drm/renderD*/device/driver")):
        return node.resolve().name
    return None


def _imports(module: str, package: str) -> dict[str, str | None]:
    """Whether a runtime can be imported here: its version, or why not."""
    try:
        importlib.import_module(module)
        return {"version": version(package), "error": None}
    except PackageNotFoundError:
        return {"version": "unknown", "error": None}
    except Exception as error:  # noqa: BLE001 - a broken wheel raises anything
        return {"version": None, "error": " ".join(str(error).split())[:200]}

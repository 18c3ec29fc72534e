"""Clock and load of a GPU: devfreq, Arm's and the vendors' drivers, and DRM's per-process counters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .files import read_int, read_text

ROOT = Path("/")
_GPU_FREQUENCIES_HZ = (
    "sys/class/devfreq/*gpu*/cur_freq",
    "sys/class/devfreq/*mali*/cur_freq",
    "sys/class/misc/mali0/device/devfreq/*/cur_freq",
    "sys/class/kgsl/kgsl-3d0/devfreq/cur_freq",
)
# Rockchip `28@300000000Hz`, MediaTek `ACTIVE=28 FREQ=...`, Exynos and Adreno `28 %`.
_GPU_LOADS = (
    ("sys/class/devfreq/*gpu*/load", r"^(\d+)@"),
    ("sys/class/misc/mali0/device/devfreq/*/load", r"^(\d+)@"),
    ("proc/mtk_mali/utilization", r"ACTIVE\s*=\s*(\d+)"),
    ("sys/kernel/gpu/gpu_busy", r"^(\d+)\s*%?"),
    ("sys/class/kgsl/kgsl-3d0/gpu_busy_percentage", r"^(\d+)"),
    ("sys/class/misc/mali0/device/utilization", r"^(\d+)"),
)


@dataclass(frozen=True)
class GpuSensor:
    """Clock and load of the GPU, each from the first path that answers."""

    frequency: Path | None
    load: Path | None
    pattern: str = ""

    @classmethod
    def find(cls, root: Path = ROOT) -> GpuSensor:
        """What answers here; nothing gives a sensor that reads None."""
        clocks = (path for pattern in _GPU_FREQUENCIES_HZ for path in sorted(root.glob(pattern)))
        clock = next((path for path in clocks if read_int(path) is not None), None)
        for glob, pattern in _GPU_LOADS:
            for path in sorted(root.glob(glob)):
                if re.search(pattern, read_text(path) or ""):
                    return cls(clock, path, pattern)
        return cls(clock, None)

    def read_mhz(self) -> float | None:
        """The GPU's clock in MHz."""
        value = None if self.frequency is None else read_int(self.frequency)
        return None if value is None else value / 1e6

    def read_load_percent(self) -> float | None:
        """The share of time in which the GPU was busy, in percent, as its driver averages it."""
        found = None if self.load is None else re.search(self.pattern, read_text(self.load) or "")
        return float(found[1]) if found else None


def drm_busy_ns(process: str, root: Path = ROOT) -> int | None:
    """Time that a process kept a DRM GPU's engines busy (panfrost, panthor, ...: drm-engine-* of fdinfo), summed."""
    total = None
    for path in root.glob(f"proc/{process}/fdinfo/*"):
        for found in re.finditer(r"^drm-engine-[\w-]+:\s*(\d+) ns", read_text(path) or "", re.MULTILINE):
            total = (total or 0) + int(found[1])
    return total

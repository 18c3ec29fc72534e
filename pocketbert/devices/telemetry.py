"""What a Linux machine tells about itself through /proc and /sys: memory, temperature, energy, governor.

Every reader probes and returns None where the machine is silent: a reading that could not be had is unknown,
never 0. `root` is / except in tests.
"""

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

from pocketbert.devices.base import HostFacts
from pocketbert.provenance import processor_name

ROOT = Path("/")
# Zones named like these hold the processor's own temperature, best first.
_CPU_ZONES = ("x86_pkg_temp", "cpu", "soc", "package", "big", "acpitz")
# Sensors that are switched off report 0 or an absurd constant.
_PLAUSIBLE_C = (1.0, 150.0)


def read_text(path: Path) -> str | None:
    """A file of /proc or /sys without its line end, or None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """A number in a file of /proc or /sys, or None."""
    text = read_text(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def process_memory_bytes(field_name: str, root: Path = ROOT) -> int | None:
    """A field of this process's /proc/self/status: VmRSS (now) or VmHWM (peak since it was started).

    getrusage's ru_maxrss will not do: it keeps the parent's peak across fork and exec.
    """
    return _kib_field(root / "proc/self/status", field_name)


@dataclass(frozen=True)
class Thermometer:
    """One thermal zone, fixed before a measurement so that its start and end can be compared."""

    path: Path | None

    @classmethod
    def find(cls, root: Path = ROOT) -> "Thermometer":
        """The zone that is most likely the processor's, or one that reads None."""
        readable = [
            zone
            for zone in sorted(root.glob("sys/class/thermal/thermal_zone*"))
            if cls(zone / "temp").read_c() is not None
        ]
        if not readable:
            return cls(None)

        def rank(zone: Path) -> int:
            kind = (read_text(zone / "type") or "").lower()
            return next((i for i, name in enumerate(_CPU_ZONES) if name in kind), len(_CPU_ZONES))

        return cls(min(readable, key=rank) / "temp")

    def read_c(self) -> float | None:
        """Temperature in degrees Celsius (the file holds thousandths)."""
        value = None if self.path is None else read_int(self.path)
        celsius = None if value is None else value / 1000
        return celsius if celsius is not None and _PLAUSIBLE_C[0] <= celsius <= _PLAUSIBLE_C[1] else None


@dataclass
class EnergyMeter:
    """RAPL counters of the processor packages: the energy of the whole package, not of one process."""

    counters: list[Path] = field(default_factory=list)
    _start: list[int | None] = field(default_factory=list)

    @classmethod
    def find(cls, root: Path = ROOT) -> "EnergyMeter":
        """All readable package counters (usually root may read them only); none gives a meter that reads None."""
        zones = sorted(root.glob("sys/class/powercap/intel-rapl:*"))
        packages = [zone for zone in zones if (read_text(zone / "name") or "").startswith("package")]
        counters = [zone / "energy_uj" for zone in packages]
        # Some of several sockets only would be too low a reading.
        return cls(counters if all(read_int(c) is not None for c in counters) else [])

    def start(self) -> None:
        """Remember the counters."""
        self._start = [read_int(counter) for counter in self.counters]

    def mean_mw(self, wall_s: float) -> float | None:
        """Mean power since `start`, in milliwatts, over `wall_s` seconds."""
        if not self.counters or wall_s <= 0:
            return None
        used_uj = 0
        for counter, before in zip(self.counters, self._start, strict=True):
            now = read_int(counter)
            if now is None or before is None:
                return None
            if now < before:  # the counter wrapped around
                limit = read_int(counter.with_name("max_energy_range_uj"))
                if limit is None:
                    return None
                now += limit
            used_uj += now - before
        return used_uj / wall_s / 1000


def read_host_facts(kind: str, root: Path = ROOT) -> HostFacts:
    """Describe this machine, a device of `kind`, as it is now."""
    load = read_text(root / "proc/loadavg")
    thermometer, meter = Thermometer.find(root), EnergyMeter.find(root)
    return HostFacts(
        kind=kind,
        processor=processor_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_total_bytes=_kib_field(root / "proc/meminfo", "MemTotal"),
        os=platform.platform(),
        governor=read_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        load_average_1min=float(load.split()[0]) if load else None,
        temperature_source=str(thermometer.path) if thermometer.path else None,
        energy_source=", ".join(str(c) for c in meter.counters) or None,
    )


def _kib_field(path: Path, name: str) -> int | None:
    """A `Name:   123 kB` line of a /proc file, in bytes."""
    for line in (read_text(path) or "").splitlines():
        key, _, value = line.partition(":")
        if key == name and value.split():
            return int(value.split()[0]) * 1024
    return None

"""What a Linux machine tells about itself through /proc and /sys: memory, temperature, power, clocks, GPU.

Every reader probes and returns None where the machine is silent: a reading that could not be had is unknown,
never 0. `root` is / except in tests. Which path answered is recorded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from .files import kib_field, read_int, read_text
from .gpu import GpuSensor, drm_busy_ns

ROOT = Path("/")
# Zones named like these hold the processor's own temperature, best first.
_CPU_ZONES = ("x86_pkg_temp", "cpu", "soc", "package", "big", "acpitz")
# Sensors that are switched off report 0 or an absurd constant.
_PLAUSIBLE_C = (1.0, 150.0)


def process_memory_bytes(field_name: str, root: Path = ROOT, process: str = "self") -> int | None:
    """A field of /proc/PID/status: VmRSS (now) or VmHWM (peak since the process was started).

    getrusage's ru_maxrss will not do: it keeps the parent's peak across fork and exec.
    """
    return kib_field(root / "proc" / process / "status", field_name)


def process_pss_bytes(root: Path = ROOT, process: str = "self") -> int | None:
    """Proportional set size, shared pages divided among their users. Walks all mappings: not for a loop."""
    return kib_field(root / "proc" / process / "smaps_rollup", "Pss")


@dataclass(frozen=True)
class Thermometer:
    """One thermal zone, fixed before a measurement so that its start and end can be compared."""

    path: Path | None

    @classmethod
    def find(cls, root: Path = ROOT) -> Thermometer:
        """The zone that is most likely the processor's, or one that reads None."""
        zones = thermal_zones(root)
        if not zones:
            return cls(None)

        def rank(zone: Path) -> int:
            kind = zones[zone].lower()
            return next((i for i, name in enumerate(_CPU_ZONES) if name in kind), len(_CPU_ZONES))

        return cls(min(zones, key=rank) / "temp")

    def read_c(self) -> float | None:
        """Temperature in degrees Celsius (the file holds thousandths)."""
        value = None if self.path is None else read_int(self.path)
        celsius = None if value is None else value / 1000
        return celsius if celsius is not None and _PLAUSIBLE_C[0] <= celsius <= _PLAUSIBLE_C[1] else None


def thermal_zones(root: Path = ROOT) -> dict[Path, str]:
    """The zones with a plausible temperature, and what each calls itself."""
    found = sorted(root.glob("sys/class/thermal/thermal_zone*"))
    return {zone: read_text(zone / "type") or "" for zone in found if Thermometer(zone / "temp").read_c() is not None}


@dataclass
class EnergyMeter:
    """RAPL counters of the processor packages: the energy of the whole package, not of one process."""

    counters: list[Path] = field(default_factory=list)
    _start: list[int | None] = field(default_factory=list)

    @classmethod
    def find(cls, root: Path = ROOT) -> EnergyMeter:
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
        for counter, before in zip(self.counters, self._start):  # noqa: B905 - Python 3.9
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


@dataclass(frozen=True)
class PowerSensor:
    """An instantaneous reading: an INA's power, or current times voltage of a sensor or a battery."""

    # Factors whose product, times `scale`, is in milliwatts.
    paths: tuple[Path, ...]
    scale: float

    @classmethod
    def find(cls, root: Path = ROOT) -> PowerSensor | None:
        """A board's sensor before a battery; None where there is neither."""
        for path in sorted(root.glob("sys/class/hwmon/hwmon*/power1_input")):  # microwatts
            if (read_int(path) or 0) > 0:
                return cls((path,), 1e-3)
        for path in sorted(root.glob("sys/class/hwmon/hwmon*/curr1_input")):  # milliamperes and millivolts
            volts = next((v for v in (path.with_name("in1_input"), path.with_name("in0_input")) if read_int(v)), None)
            if volts is not None and read_int(path) is not None:
                return cls((path, volts), 1e-3)
        for path in sorted(root.glob("sys/class/power_supply/*/current_now")):  # microamperes and microvolts
            if read_int(path) is not None and read_int(path.with_name("voltage_now")):
                return cls((path, path.with_name("voltage_now")), 1e-9)
        return None

    def read_mw(self) -> float | None:
        """Milliwatts. A battery's current is negative while charging on some machines and discharging on others."""
        product = self.scale
        for path in self.paths:
            value = read_int(path)
            if value is None:
                return None
            product *= abs(value)
        return product


def throttle_events(root: Path = ROOT) -> int | None:
    """Times that the machine was throttled by heat: cooling devices that are active now, plus x86's counters."""
    devices = root.glob("sys/class/thermal/cooling_device*")
    # A fan that turns slows nothing down.
    states = [read_int(d / "cur_state") for d in devices if "fan" not in (read_text(d / "type") or "").lower()]
    counts = [read_int(p) for p in root.glob("sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")]
    known = [int(value > 0) for value in states if value is not None] + [c for c in counts if c is not None]
    return sum(known) if known else None


def cpu_mhz(root: Path = ROOT) -> float | None:
    """Clock of the fastest core now, in MHz."""
    clocks = [read_int(p) for p in root.glob("sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq")]
    known = [clock for clock in clocks if clock is not None]
    return max(known) / 1000 if known else None


@dataclass
class Sampler:
    """All sensors of a machine, found once; a sample is a flat dictionary without the unknown."""

    root: Path = ROOT

    def __post_init__(self) -> None:
        self.thermometer, self.power = Thermometer.find(self.root), PowerSensor.find(self.root)
        self.gpu = GpuSensor.find(self.root)

    def sample(self, process: int | None = None) -> dict[str, float]:
        """Read every sensor, and of `process` its memory and the time that it kept a DRM GPU busy."""
        readings = {
            "monotonic_s": time.monotonic(),
            "temperature_c": self.thermometer.read_c(),
            "power_mw": None if self.power is None else self.power.read_mw(),
            "cpu_mhz": cpu_mhz(self.root),
            "gpu_mhz": self.gpu.read_mhz(),
            "gpu_load_percent": self.gpu.read_load_percent(),
            "throttle_events": throttle_events(self.root),
            "memory_bytes": None if process is None else process_memory_bytes("VmRSS", self.root, str(process)),
            "gpu_busy_ns": None if process is None else drm_busy_ns(str(process), self.root),
        }
        return {name: value for name, value in readings.items() if value is not None}

    def sources(self) -> dict[str, str | None]:
        """Which path gives each reading; None where none answers."""
        meter = EnergyMeter.find(self.root)
        # A counter misses nothing between two readings, so it goes before a sensor.
        power = tuple(meter.counters) or (self.power.paths if self.power else ())
        governor = self.root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
        return {
            "temperature": _path(self.thermometer.path),
            "power": ", ".join(map(str, power)) or None,
            "cpu_clock": "sys/devices/system/cpu/cpufreq" if cpu_mhz(self.root) is not None else None,
            "gpu_clock": _path(self.gpu.frequency),
            "gpu_load": _path(self.gpu.load),
            "throttling": "sys/class/thermal, thermal_throttle" if throttle_events(self.root) is not None else None,
            "governor": str(governor) if read_text(governor) else None,
            "memory": "proc/PID/status" if process_memory_bytes("VmHWM", self.root) is not None else None,
        }


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)

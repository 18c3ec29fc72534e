"""Sensors of a device without Python: its files, fetched with one command into a folder that the agent's readers read.

The scripts are fixed texts of what toybox, busybox and coreutils have in common.
"""

import re
from pathlib import Path
from typing import Any

from pocketbert.devices.agent.probe import read_facts
from pocketbert.devices.links.base import Link

_GLOBS = (
    "/proc/cpuinfo", "/proc/meminfo", "/proc/loadavg", "/proc/device-tree/model", "/proc/mtk_mali/utilization",
    "/etc/os-release", "/sys/class/thermal/thermal_zone*/type", "/sys/class/thermal/thermal_zone*/temp",
    "/sys/class/thermal/cooling_device*/type", "/sys/class/thermal/cooling_device*/cur_state",
    "/sys/class/devfreq/*gpu*/cur_freq", "/sys/class/devfreq/*gpu*/load", "/sys/class/devfreq/*mali*/cur_freq",
    "/sys/class/misc/mali0/device/gpuinfo", "/sys/class/misc/mali0/device/utilization", "/sys/kernel/gpu/gpu_busy",
    "/sys/class/kgsl/kgsl-3d0/devfreq/cur_freq", "/sys/class/kgsl/kgsl-3d0/gpu_busy_percentage",
    "/sys/class/hwmon/hwmon*/power1_input", "/sys/class/hwmon/hwmon*/curr1_input", "/sys/class/hwmon/hwmon*/in*_input",
    "/sys/class/power_supply/*/current_now", "/sys/class/power_supply/*/voltage_now",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "/sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq",
)  # fmt: skip
_MARK = "@@pocketbert@@"
_SCRIPT = f"""
for f in {" ".join(_GLOBS)}; do
  [ -r "$f" ] && printf '\\n{_MARK}%s\\n' "$f" && head -c 65536 "$f" 2>/dev/null
done
printf '\\n{_MARK}getprop\\n'; command -v getprop >/dev/null && getprop
printf '\\n{_MARK}thermalservice\\n'; command -v dumpsys >/dev/null && dumpsys thermalservice 2>/dev/null
exit 0
"""
_FACTS = """
uname -m; uname -r; grep -c ^processor /proc/cpuinfo
p=$1; while [ ! -d "$p" ] && [ "$p" != / ]; do p=$(dirname "$p"); done
df -k "$p" | tail -n 1 | awk '{print $4}'
"""
_PROPERTY = re.compile(r"^\[(?P<name>[^\]]+)\]: \[(?P<value>.*)\]$", re.MULTILINE)
# AOSP's Temperature.toString(); type 0 is the processor's. The cached values come before those of the HAL.
_TEMPERATURE = re.compile(r"Temperature\{mValue=(-?[\d.]+), mType=(\d+), mName=([^,]+), mStatus=(\d+)\}")
_TIMEOUT_S = 30.0


def take_snapshot(link: Link, root: Path) -> dict[str, str]:
    """Write the device's files below `root` as they are now; returns Android's properties, none elsewhere."""
    done = link.run(["sh", "-c", _SCRIPT], timeout_s=_TIMEOUT_S)
    said = done.stdout.decode("utf-8", "replace").split(f"\n{_MARK}")[1:]
    parts = {path: content for path, _, content in (part.partition("\n") for part in said)}
    properties = {found["name"]: found["value"] for found in _PROPERTY.finditer(parts.pop("getprop", ""))}
    thermal = parts.pop("thermalservice", "")
    for path, content in parts.items():
        _write(root / path.lstrip("/"), content)
    if not list(root.glob("sys/class/thermal/thermal_zone*/temp")):
        _write_thermal(root, thermal)
    if "ro.build.version.release" in properties:
        release, model = properties["ro.build.version.release"], properties.get("ro.product.model", "unknown model")
        _write(root / "etc/os-release", f'PRETTY_NAME="Android {release} ({model})"\n')
    return properties


def read_remote_facts(link: Link, root: Path, work: str) -> dict[str, Any]:
    """The agent's facts from a snapshot, with what only a command tells."""
    properties = take_snapshot(link, root)
    told = link.run(["sh", "-c", _FACTS, "sh", work], timeout_s=_TIMEOUT_S).stdout.decode(errors="replace").split("\n")
    machine, kernel, cores, space = (told + [""] * 4)[:4]
    facts = read_facts(root, root)
    soc = " ".join(properties[key] for key in ("ro.soc.manufacturer", "ro.soc.model") if properties.get(key))
    return {
        **facts,
        "processor": soc or facts["processor"],
        "architecture": machine,
        "cores": int(cores) if cores.isdigit() else 1,
        "kernel": kernel,
        "free_bytes": int(space) * 1024 if space.isdigit() else 0,
        "python": "",
        "libc": None,
    }


def _write_thermal(root: Path, dump: str) -> None:
    """Android's thermal service as zones: most phones let nobody read the kernel's own."""
    seen: set[str] = set()
    for value, kind, name, _ in _TEMPERATURE.findall(dump):
        if name not in seen:
            zone = root / f"sys/class/thermal/thermal_zone{len(seen)}"
            _write(zone / "type", f"cpu {name}" if kind == "0" else name)
            _write(zone / "temp", str(round(float(value) * 1000)))
            seen.add(name)


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")

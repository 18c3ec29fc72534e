"""Ask a device what it is: processor, memory, sensors, runtimes, clock, space."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from pocketbert.devices.connect import open_link, open_session
from pocketbert.devices.follow import Patience
from pocketbert.devices.inventory import AdbParams, LocalParams, SshParams, find_device
from pocketbert.devices.links.base import Link
from pocketbert.devices.session import DeviceSession
from pocketbert.errors import DeviceError

# Whoever asks wants to know now whether the device is there.
_PATIENCE = Patience(reconnect_s=5.0, connect_s=0.0)


@dataclass(frozen=True)
class Probe:
    """What a device said; the fields behind `error` are None or empty where it does not tell."""

    name: str
    kind: str
    reachable: bool
    # Why it is not, or why its agent cannot run.
    error: str | None = None
    processor: str | None = None
    architecture: str | None = None
    cores: int | None = None
    os: str | None = None
    kernel: str | None = None
    libc: str | None = None
    python: str | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    free_bytes: int | None = None
    governor: str | None = None
    load_average_1min: float | None = None
    gpu_model: str | None = None
    gpu_driver: str | None = None
    # The device's clock minus this machine's, and how far that may be wrong.
    clock_skew_s: float | None = None
    clock_skew_error_s: float | None = None
    thermal_zones_c: dict[str, float] = field(default_factory=dict)
    # The path that each reading comes from.
    telemetry: dict[str, str | None] = field(default_factory=dict)
    # Version by runtime that the device's own Python imports, None where it does not.
    runtimes: dict[str, str | None] = field(default_factory=dict)
    # Who holds the device at this moment.
    in_use_by: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self)


def probe_device(name: str, link: Link | None = None) -> Probe:
    """Connect and ask; a device that cannot be reached is an answer. Raises ParamsError for a bad entry."""
    device = find_device(name)
    session = open_session(name, device, link or open_link(name, device), _PATIENCE)
    try:
        with session:
            return _ask(name, device, session)
    except DeviceError as error:
        return Probe(name, device.kind, reachable=session.connected, error=str(error))


def _ask(name: str, device: LocalParams | SshParams | AdbParams, session: DeviceSession) -> Probe:
    before = time.time()
    clock = session.clock_s()
    after = time.time()
    answer = session.probe()
    owner = session.owner()
    imports = answer.pop("imports")
    return Probe(
        name,
        device.kind,
        reachable=True,
        runtimes={runtime: said["version"] for runtime, said in imports.items()},
        clock_skew_s=round(clock - (before + after) / 2, 3),
        clock_skew_error_s=round((after - before) / 2, 3),
        in_use_by=f"process {owner.get('pid')} of {owner.get('host')}" if owner else None,
        thermal_zones_c=answer.pop("thermal_zones_c"),
        telemetry=answer.pop("telemetry"),
        **answer,
    )

"""Open the link of a device of the inventory."""

import sys
from pathlib import Path

from pocketbert.devices.follow import Patience
from pocketbert.devices.inventory import AdbParams, LocalParams, SshParams
from pocketbert.devices.links.base import Link
from pocketbert.devices.session import DeviceSession
from pocketbert.devices.shell import ShellSession

STATE_FOLDER = Path(".pocketbert/devices")


def open_link(name: str, device: LocalParams | SshParams | AdbParams) -> Link:
    """The link of a device's kind, not yet connected. The transports are imported when they are needed."""
    if isinstance(device, SshParams):
        from pocketbert.devices.links.ssh import SshLink

        return SshLink(name, device)
    if isinstance(device, AdbParams):
        from pocketbert.devices.links.adb import AdbLink

        return AdbLink(name, device)
    from pocketbert.devices.links.local import LocalLink

    return LocalLink()


def work_folder(name: str, device: LocalParams | SshParams | AdbParams) -> str:
    """The agent's folder on the device."""
    return device.work or str((STATE_FOLDER / name).resolve())


def open_session(
    name: str, device: LocalParams | SshParams | AdbParams, link: Link, patience: Patience
) -> DeviceSession:
    """A session through the agent, or where the device has no Python through plain commands; not yet connected."""
    python = sys.executable if isinstance(device, LocalParams) else device.python
    if python is None:
        return ShellSession(name, link, work_folder(name, device), patience)
    return DeviceSession(name, link, work_folder(name, device), python, patience)

"""The runtime that a file is judged against: a version, or what a device of devices.yaml has."""

import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pocketbert.devices.inventory import INVENTORY_PATH, read_inventory
from pocketbert.errors import ParamsError
from pocketbert.inspection.op_versions import Version, parse_version

# LiteRT 2 counts anew from 2.0: it followed TFLite 2.20 and has all of its operators.
_LITERT_2_AS_TFLITE = "2.20"


@dataclass(frozen=True)
class Target:
    """A runtime as the user named it, and its version."""

    name: str
    version: Version


def find_target(runtime: str, model_format: str, inventory: Path = INVENTORY_PATH) -> Target:
    """The version of the runtime for a format ("tflite" or "onnx").

    `runtime` is a version such as 2.13, or the name of a device. A device that does not state the version has what is
    installed here. Raises ParamsError for a bad version and an unknown device.
    """
    if re.match(r"-?\d|^$", runtime):
        return Target(runtime, parse_version(runtime))
    if not inventory.is_file():
        raise ParamsError(
            f"{runtime!r} is neither a version nor a device: there is no {inventory} here",
            "Give a version such as 2.13, or call it in the project's folder.",
        )
    devices = read_inventory(inventory).devices
    if runtime not in devices:
        raise ParamsError(
            f"{runtime!r} is neither a version nor a device of {inventory}",
            f"Give a version such as 2.13, or one of: {', '.join(devices) or 'none is declared'}.",
        )
    stated = {str(name): number for name, number in devices[runtime].runtimes.items()}.get(model_format)
    number = stated or (_LITERT_2_AS_TFLITE if model_format == "tflite" else version("onnxruntime"))
    return Target(f"{number} ({runtime})", parse_version(number))

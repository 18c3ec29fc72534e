"""devices.yaml: the machines that `benchmark` may measure on.

A new kind (ssh, adb) is a class here with its own keys, a member of `DeviceParams`, and a module that
implements `pocketbert.devices.base.Device`, opened in `open_device`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError

from pocketbert.errors import ParamsError
from pocketbert.params import Section, explain_mistakes, read_yaml

if TYPE_CHECKING:
    from pocketbert.devices.base import Device

INVENTORY_PATH = Path("devices.yaml")


DeviceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]

RuntimeVersion = Annotated[str, Field(pattern=r"^\d+\.\d+(\.\d+)?$")]


class LocalParams(Section):
    """The machine that runs the pipeline."""

    kind: Literal["local"]
    # Versions for `pocketbert inspect --runtime NAME`, in quotes: TFLite's own numbers (TensorFlow's), ONNX Runtime's.
    # What is left out is what is installed here.
    runtimes: dict[Literal["tflite", "onnx"], RuntimeVersion] = Field(default_factory=dict)


# A union discriminated by `kind` once there is a second one.
DeviceParams = LocalParams


class Inventory(Section):
    """All devices by name."""

    devices: dict[DeviceName, DeviceParams] = Field(default_factory=dict)


def read_inventory(path: Path = INVENTORY_PATH) -> Inventory:
    """Read and validate devices.yaml; raises ParamsError."""
    raw = read_yaml(path)
    try:
        return Inventory.model_validate(raw)
    except ValidationError as error:
        mistakes = explain_mistakes(error, Inventory, raw)
        raise ParamsError(f"{path} is not valid: {mistakes}", "A device reads `name: {kind: local}`.") from error


def open_device(name: str, path: Path = INVENTORY_PATH) -> "Device":
    """The device called `name`; raises ParamsError where the inventory does not know it."""
    devices = read_inventory(path).devices
    if name not in devices:
        raise ParamsError(
            f"{path} has no device {name!r}",
            f"Add it, or use one of: {', '.join(devices) or 'none is declared'}.",
        )
    from pocketbert.devices.local import LocalDevice

    return LocalDevice()

"""devices.yaml: the machines that `benchmark` may measure on.

A kind is a class here with its own keys, a member of `DeviceParams`, and a link that `pocketbert.devices.connect`
opens. No key holds a secret: a private key is a file, its passphrase an environment variable.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from pocketbert.errors import ParamsError
from pocketbert.params import BenchmarkParams, Section, explain_mistakes, read_yaml
from pocketbert.params.delegation import Precision

INVENTORY_PATH = Path("devices.yaml")

# A name is a folder and a part of a DVC key (hence no dot).
DeviceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
RuntimeVersion = Annotated[str, Field(pattern=r"^\d+\.\d+(\.\d+)?$")]
# None of them can be taken for an option: the first character is never a dash.
Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9:][A-Za-z0-9.:%_-]{0,252}$")]
User = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]
Serial = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
EnvironmentVariable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_FINGERPRINT = r"SHA256:[A-Za-z0-9+/]{43}=?"
_KNOWN_HOST = r"([^\s\x00-\x1f]+ )?(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}( [^\x00-\x1f]*)?"
# An OpenSSH fingerprint, a public key, or a line of known_hosts (its host names are not looked at).
HostKey = Annotated[str, Field(pattern=f"^({_FINGERPRINT}|{_KNOWN_HOST})$")]
# Absolute, and free of control characters; blanks and quotes are safe.
DevicePath = Annotated[str, Field(pattern=r"^/[^\x00-\x1f\x7f]*$", max_length=1024)]


DeviceProgram = Annotated[str, Field(pattern=r"^[A-Za-z0-9_/.][^\x00-\x1f\x7f]*$")]


class GpuParams(Section):
    """The GPU that rows are measured on beside the CPU's."""

    name: str | None = None
    driver: Literal["vulkan", "opencl"]
    # A row each for every .tflite file that the GPU runs.
    precisions: tuple[Precision, ...] = ("fp16_sums_fp32",)
    # A driver that computes on the processor: its results are proofs, its times mean nothing.
    software_gpu: bool = False
    # The driver's description (a Vulkan ICD's .json) on the device, where its loader must not choose among several.
    icd: DevicePath | None = None


class Limits(Section):
    """What the device bears."""

    # In MB of 1,000,000 bytes, beside the process itself; the errors of what does not fit name tenths.
    max_memory_mb: Annotated[float, Field(strict=True, gt=0.0, allow_inf_nan=False)] | None = None
    # Longest wait between two measurements for the temperature to come back; 0 does not wait.
    cool_down_s: Annotated[int, Field(strict=True, ge=0)] = 0
    # No measurement starts above it.
    max_temperature_c: Annotated[float, Field(strict=True, gt=0.0, le=150.0)] | None = None

    # How long another benchmark on this device is waited for.
    wait_s: Annotated[int, Field(strict=True, ge=0)] = 600


class NativeRunner(Section):
    """A program of the user's that measures where there is no Python (docs/devices.md)."""

    # Files here that are pushed to the device, by the name that `{file:NAME}` stands for.
    files: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], Path] = Field(default_factory=dict)
    # Arguments with placeholders.
    command: Annotated[list[str], Field(min_length=1)]
    # Which artifacts it can run.
    formats: tuple[Literal["onnx", "tflite"], ...] = ("tflite",)
    # json: a line of JSON, with logits. benchmark_model: it is LiteRT's own, which is asked in its own way.
    answer: Literal["json", "benchmark_model"] = "json"


class _Device(Section):
    """Keys of every kind."""

    # Versions for `pocketbert inspect --runtime NAME`, in quotes: TFLite's own numbers (TensorFlow's), ONNX Runtime's.
    # What is left out is what is installed here.
    runtimes: dict[Literal["tflite", "onnx"], RuntimeVersion] = Field(default_factory=dict)
    gpu: GpuParams | None = None
    limits: Limits = Limits()
    tags: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]] = Field(default_factory=list)
    # Keys of params.yaml's `benchmark` that differ on this device.
    benchmark: BenchmarkParams = BenchmarkParams()
    # Set for the time of a benchmark and put back after it; recorded only when null.
    governor: Annotated[str, Field(pattern=r"^[a-z_]+$")] | None = None
    runner: NativeRunner | None = None

    @model_validator(mode="after")
    def _asks_by_commands(self) -> "_Device":
        asked = self.runner is not None and self.runner.answer == "benchmark_model"
        if asked and getattr(self, "python", "own") is not None:
            raise ValueError(
                "has a runner that is asked by plain commands: `answer: benchmark_model` needs `python: null`"
            )
        return self


class LocalParams(_Device):
    """The machine that runs the pipeline."""

    kind: Literal["local"]
    # The agent's folder; `.pocketbert/devices/NAME` where it is null.
    work: DevicePath | None = None


class _Remote(_Device):
    """Keys of a device at the end of a link."""

    python: DeviceProgram | None

    @model_validator(mode="after")
    def _measures_somehow(self) -> "_Remote":
        if self.python is None and self.runner is None:
            raise ValueError("needs python, or a runner that measures without it")
        return self


class SshParams(_Remote):
    """A board that answers SSH."""

    kind: Literal["ssh"]
    address: Address
    port: Port = 22
    user: User
    # The private key's file; ~ is the home folder here.
    key: Path
    # Name of the environment variable that holds the key's passphrase.
    passphrase_variable: EnvironmentVariable | None = None
    host_key: HostKey
    work: DevicePath
    # The device's own interpreter, which runs the agent; null where there is none and `runner` measures.
    python: DeviceProgram | None = "python3"
    # wheels: the runtimes are brought along, in an environment of their own; own: `python` imports them already.
    environment: Literal["wheels", "own"] = "wheels"


class AdbParams(_Remote):
    """A phone or board that answers ADB."""

    kind: Literal["adb"]
    # As `adb devices` prints it, or HOST:PORT for a device on the network.
    serial: Serial
    # Of an adb server of our own, beside any that runs; a free one where it is null.
    server_port: Port | None = None
    work: DevicePath = "/data/local/tmp/pocketbert"
    # An interpreter on the device, such as Termux's, which has the runtimes itself: there are no wheels for Android.
    # Null where there is none and `runner` measures.
    python: DeviceProgram | None = "python3"
    environment: Literal["wheels", "own"] = "own"


DeviceParams = Annotated[LocalParams | SshParams | AdbParams, Field(discriminator="kind")]


class Inventory(Section):
    """All devices by name."""

    devices: dict[DeviceName, DeviceParams] = Field(default_factory=dict)


def read_inventory(path: Path = INVENTORY_PATH) -> Inventory:
    """Read and validate devices.yaml; raises ParamsError."""
    raw = read_yaml(path)
    try:
        return Inventory.model_validate(raw)
    except ValidationError as error:
        # A name may hold anything, line ends too.
        mistakes = " ".join(explain_mistakes(error, Inventory, raw).split())
        raise ParamsError(
            f"{path} is not valid: {mistakes}",
            "A device reads `name: {kind: local}`; a name has letters, digits, `_` and `-`.",
        ) from error


def find_device(name: str, path: Path = INVENTORY_PATH) -> LocalParams | SshParams | AdbParams:
    """The device called `name`; raises ParamsError where the inventory does not know it."""
    devices = read_inventory(path).devices
    if name not in devices:
        raise ParamsError(
            f"{path} has no device {name!r}",
            f"Add it, or use one of: {', '.join(devices) or 'none is declared'}.",
        )
    return devices[name]

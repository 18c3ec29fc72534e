"""What is measured on a device: every artifact on the processor, and .tflite files on its GPU too."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pocketbert.artifacts import Artifact
from pocketbert.devices.base import Accelerator, Engine
from pocketbert.devices.inventory import AdbParams, LocalParams, SshParams
from pocketbert.measurement import measurement_name
from pocketbert.params.delegation import Precision
from pocketbert.partition.fit import fit_memory, memory_refusal

_ENGINES: dict[str, Engine] = {"torch": "pocketbert", "onnx": "onnxruntime", "tflite": "litert"}


@dataclass(frozen=True)
class Target:
    """One row-to-be."""

    artifact: Artifact
    engine: Engine
    accelerator: Accelerator = "cpu"
    gpu_precision: Precision | None = None
    # Why it cannot be measured on this device at all.
    refusal: str | None = None

    @property
    def key(self) -> str:
        """Unique on a device."""
        return measurement_name(self.artifact.name, self.gpu_precision)


def choose_targets(artifacts: Sequence[Artifact], device: LocalParams | SshParams | AdbParams) -> list[Target]:
    """All rows of a device, in the order of the artifacts."""
    return [target for artifact in artifacts for target in _targets_of(artifact, device)]


def _targets_of(artifact: Artifact, device: LocalParams | SshParams | AdbParams) -> Iterator[Target]:
    runner = device.runner
    here = isinstance(device, LocalParams)
    native = runner is not None and artifact.card.format in runner.formats
    refusal = None
    if artifact.card.format == "torch" and not here:
        refusal = "torch models are measured on this machine only: they are the source of what a device runs"
    elif not isinstance(device, LocalParams) and not native and device.python is None:
        refusal = "the device has no Python, and its `runner` in devices.yaml does not run this format"
    elif not native:
        refusal = memory_refusal(artifact, device.limits.max_memory_mb)
    yield Target(artifact, "native" if native else _ENGINES[artifact.card.format], refusal=refusal)
    if device.gpu is None or artifact.card.format != "tflite" or native:
        return
    refusal = refusal or _gpu_refusal(artifact, device)
    for precision in device.gpu.precisions:
        yield Target(artifact, "litert", "gpu", precision, refusal)


def _gpu_refusal(artifact: Artifact, device: LocalParams | SshParams | AdbParams) -> str | None:
    """Why a .tflite file that runs on the processor is not measured on the GPU; None where it is."""
    if device.gpu is not None and device.gpu.driver == "opencl":
        return "LiteRT reaches a GPU through Vulkan: through OpenCL it is measured by a `runner` in devices.yaml"
    if fit_memory(artifact, device.limits.max_memory_mb).in_parts:
        return "it runs in parts (limits.max_memory_mb), and parts run on the processor"
    return None

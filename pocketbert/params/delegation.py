"""Parameters of the stage that asks which operators a GPU takes."""

from typing import Annotated, Literal

from pydantic import Field

from pocketbert.params.section import Positive, Section

# Arithmetic of a GPU; a CPU computes as the file says. fp16_sums_fp32: in fp16, but sums in fp32.
Precision = Literal["fp32", "fp16", "fp16_sums_fp32"]


class DelegateParams(Section):
    """Rules are asked always; a GPU where the device's entry in devices.yaml has a `gpu`."""

    profiles: list[str] = Field(default_factory=lambda: ["litert-2.3", "tflite-android-2.x"], min_length=1)
    device: str = "local"
    # In which the GPU computes.
    precisions: list[Precision] = Field(
        default_factory=lambda: list[Precision](("fp32", "fp16_sums_fp32")), min_length=1
    )
    # Validation rows whose logits are compared with the CPU's.
    rows: Annotated[int, Field(strict=True, ge=2)] = 8
    # Of each run: a driver that hangs is killed after it.
    timeout_s: Positive = 120

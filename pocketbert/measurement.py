"""What a row of a benchmark is called."""


def measurement_name(artifact: str, gpu_precision: str | None) -> str:
    """What was measured on a device: the artifact, or the artifact on a GPU in a precision."""
    return artifact if gpu_precision is None else f"{artifact}@gpu-{gpu_precision}"

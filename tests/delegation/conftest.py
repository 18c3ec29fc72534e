import os

import pytest

from pocketbert.delegation.analyze import analyze
from pocketbert.errors import DeviceError
from tests.export.trained import exported


@pytest.fixture(scope="session")
def gpu() -> str:
    """The Vulkan adapter of this machine. In CI it must be there; .ci/run installs a software driver."""
    try:
        found = analyze(exported("bert").tflite / "model.tflite")
    except DeviceError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))
    assert found.measurement is not None
    return found.measurement.placement.adapter

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pocketbert.runtimes.isolated import run_isolated
from pocketbert.runtimes.litert_log import NoGpuError
from tests.export.trained import SEQUENCE_LENGTH, exported


@pytest.fixture(scope="session")
def gpu() -> str:
    """The Vulkan adapter of this machine. In CI it must be there; .ci/run installs a software driver."""
    rows = {name: np.ones((1, SEQUENCE_LENGTH), np.int32) for name in ("input_ids", "attention_mask", "token_type_ids")}
    try:
        placement = run_isolated(exported("bert").tflite / "model.tflite", rows, accelerator="gpu").placement
    except NoGpuError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))
    assert placement.adapter is not None
    return placement.adapter


@pytest.fixture
def broken_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a Vulkan driver (ICD) whose first call runs the given C statement, and have Vulkan load it alone."""

    def make(statement: str) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            reason = "a C compiler is needed to build a broken driver: apt-get install gcc libc6-dev"
            pytest.fail(reason) if "CI" in os.environ else pytest.skip(reason)
        source, library, manifest = tmp_path / "icd.c", tmp_path / "icd.so", tmp_path / "icd.json"
        source.write_text(
            "#include <stdlib.h>\n#include <unistd.h>\n"
            f"int vk_icdNegotiateLoaderICDInterfaceVersion(unsigned *version) {{ {statement} }}\n"
            f"void *vk_icdGetInstanceProcAddr(void *instance, const char *name) {{ {statement} }}\n"
        )
        subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", library, source], check=True)
        manifest.write_text(
            f'{{"file_format_version": "1.0.0", "ICD": {{"library_path": "{library}", "api_version": "1.3.0"}}}}'
        )
        monkeypatch.setenv("VK_ICD_FILENAMES", str(manifest))
        monkeypatch.setenv("VK_DRIVER_FILES", str(manifest))

    return make

"""A real Vulkan driver (Mesa's in software) that breaks in the middle of its work, built here."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

_ICDS = Path("/usr/share/vulkan/icd.d")
INSTALL = "Mesa's software driver and gcc are not there: .ci/run installs them (mesa-vulkan-drivers, gcc)"


def breaking_driver(folder: Path, statement: str, *, after: int) -> Path:
    """The description (ICD) of a driver that runs a C statement at its submission number `after`."""
    described = next(iter(sorted(_ICDS.glob("lvp_icd*.json"))), None)
    if described is None or shutil.which("gcc") is None:
        pytest.fail(INSTALL) if "CI" in os.environ else pytest.skip(INSTALL)
    mesa = json.loads(described.read_text(encoding="utf-8"))
    library = folder / "breaking.so"
    subprocess.run(
        [
            "gcc", "-shared", "-fPIC", "-O1", f'-DDRIVER="{mesa["ICD"]["library_path"]}"', f"-DAFTER={after}",
            f"-DBREAK={statement}", "-o", str(library), str(Path(__file__).with_name("gpu_driver.c")), "-ldl",
        ],
        check=True,
    )  # fmt: skip
    place = folder / "breaking.json"
    place.write_text(json.dumps(mesa | {"ICD": mesa["ICD"] | {"library_path": str(library)}}), encoding="utf-8")
    return place

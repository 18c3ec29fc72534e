"""One interface over the CPU's and the GPU's runtimes, each in a process of its own where it may die."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pocketbert.artifacts import read_artifact
from pocketbert.data.tokenize import TextEncoder
from pocketbert.devices.agent.litert_log import NO_GPU, NoGpu, overheard, read_placement
from pocketbert.errors import DeviceError
from pocketbert.runtimes.base import Placement
from pocketbert.runtimes.engines import open_runtime
from pocketbert.runtimes.isolated import run_isolated
from pocketbert.runtimes.litert_log import require_gpu
from tests.delegation.conftest import gpu  # noqa: F401 (a fixture)
from tests.export.trained import exported, make_texts

GPU = Placement(accelerator="gpu", adapter="llvmpipe", software=True, total=9, delegated=9, partitions=1)
IN_PROCESS = """
import os, sys
from pathlib import Path
import numpy as np
from pocketbert.data.tokenize import TextEncoder
from pocketbert.runtimes.engines import open_runtime
folder = Path(sys.argv[1])
rows = TextEncoder(folder).encode(["w1 w5 w9", "w2 w3"], 16)
runtime = open_runtime(folder, accelerator="gpu", precision="fp32", software_gpu=True)
np.save(sys.argv[2], runtime.run(rows))
placed = runtime.placement()
print(placed.accelerator, placed.delegated == placed.total, placed.partitions, flush=True)
runtime.close()
os._exit(0)
"""


def test_cpu_runtimes_say_that_they_are_on_the_cpu() -> None:
    for folder in (exported("bert").classifier, exported("bert").onnx, exported("bert").tflite):
        runtime = open_runtime(folder)
        placed = runtime.placement()
        assert placed.accelerator == "cpu" and placed.adapter is None and placed.delegated is None
        assert (placed.total is not None) == (folder == exported("bert").tflite)
        runtime.close()


def test_the_same_interface_runs_on_the_gpu(gpu: str, tmp_path: Path) -> None:  # noqa: F811
    folder = exported("bert").tflite
    # As the benchmark's worker opens it: in a process that may die, its standard error a pipe.
    done = subprocess.run(
        [sys.executable, "-c", IN_PROCESS, folder, tmp_path / "logits.npy"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # LiteRT writes to standard output as well.
    assert done.stdout.splitlines()[-1] == "gpu True 1"
    assert "Selected adapter" in done.stderr, "what was overheard must reach the standard error all the same"
    rows = TextEncoder(folder).encode(["w1 w5 w9", "w2 w3"], 16)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), open_runtime(folder).run(rows), atol=1e-4)


def test_an_isolated_run_on_the_cpu_gives_the_same_logits() -> None:
    folder = exported("bert").tflite
    rows = TextEncoder(folder).encode(make_texts(3, seed=1)[0], 24)
    run = run_isolated(folder / "model.tflite", rows, accelerator="cpu")
    np.testing.assert_array_equal(run.outputs, open_runtime(folder).run(rows))
    assert run.placement.accelerator == "cpu"


def test_what_is_no_gpu_run_is_an_error() -> None:
    require_gpu(GPU, software_gpu=True)
    with pytest.raises(DeviceError, match="driver in software"):
        require_gpu(GPU, software_gpu=False)
    nothing = Placement(accelerator="gpu", adapter="Mali-G710", total=9, delegated=0, refused=("GATHER: no",))
    with pytest.raises(DeviceError, match="took none of 9 operators: GATHER: no"):
        require_gpu(nothing, software_gpu=False)


def test_accelerator_and_precision_must_fit_the_file() -> None:
    with pytest.raises(DeviceError, match=r"no \.tflite file"):
        open_runtime(read_artifact(exported("bert").onnx), accelerator="gpu")
    with pytest.raises(DeviceError, match="the file's own precision"):
        open_runtime(exported("bert").tflite, precision="fp16")


def test_the_runtime_s_words_are_read() -> None:
    adapter = "I0000 Selected adapter: Mali-G710, backend=Vulkan, adapterType=Integrated GPU\n"
    said = adapter + (
        "Following operations are not supported by GPU delegate:\nGATHER: Only support 1D indices\n\n"
        "79 operations will run on the GPU, and the remaining 4 operations will run on the CPU.\n"
        "I0000 Initializing WebGPU-based API from graph.\n"
    )
    placed = read_placement(said, 999)
    assert (placed.total, placed.delegated, placed.partitions, placed.software) == (83, 79, 1, False)
    assert placed.refused[0] == "GATHER: Only support 1D indices"
    assert read_placement(adapter, 83).delegated == 83
    none = adapter + "No operations will run on the GPU, and all 83 operations will run on the CPU\n"
    assert (read_placement(none, 83).delegated, read_placement(none, 83).total) == (0, 83)
    with pytest.raises(NoGpu):
        read_placement(f"{adapter}{NO_GPU}\n", 83)


def test_what_native_code_says_is_overheard_and_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    with overheard() as said:
        os.write(2, b"Selected adapter: x\n")
        assert said() == "Selected adapter: x\n"
    assert "Selected adapter: x" in capfd.readouterr().err

"""ncnn on the CPU or on a Vulkan GPU: an alternative to LiteRT where a board has no delegate (the extra `ncnn`).

Its `fp16` stores weights and activations in half precision and computes in float32: computing in half precision as well
moved the logits of a trained student by more than the proofs allow (docs/ncnn.md).
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.data.tokenize import Batch
from pocketbert.errors import CheckpointError, DeviceError
from pocketbert.runtimes.base import Accelerator, Placement, Precision, TensorSpec, fit_rows
from pocketbert.runtimes.litert_log import NoGpuError, require_gpu
from pocketbert.runtimes.ncnn_inputs import GRAPH_FILE, PARAM_FILE, NcnnInputs

try:
    import ncnn
except ImportError as error:
    raise DeviceError("ncnn is not installed", "Run: pip install 'pocketbert[ncnn]'") from error

_CPU_TYPE = 3  # VkPhysicalDeviceType's order in ncnn: discrete, integrated, virtual, cpu.


class NcnnRuntime:
    """A model.ncnn.bin with its param file; layers without a Vulkan implementation run on the CPU."""

    def __init__(self, path: Path, accelerator: Accelerator, precision: Precision, threads: int = 1) -> None:
        """Load; raises NoGpuError, DeviceError and CheckpointError (files that do not belong together)."""
        self.name = f"ncnn {version('ncnn')}"
        self._graph = NcnnInputs.model_validate_json((path.parent / GRAPH_FILE).read_bytes())
        gpu = accelerator == "gpu"
        if gpu and ncnn.get_gpu_count() == 0:
            raise NoGpuError
        self._net = _open(path, gpu=gpu, half=precision != "fp32", threads=threads)
        self._placement = _place(self._net) if gpu else Placement(total=len(self._net.layers()))
        length = self._graph.sequence_length
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if self._graph.token_types else [])]
        self.inputs = tuple(TensorSpec(name, "int32", (1, length)) for name in names)

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits, float32 [rows, classes]; rows are run one after another, shorter ones padded."""
        feed = fit_rows(batch, self.inputs)
        rows = ({name: values[[index]] for name, values in feed.items()} for index in range(len(feed["input_ids"])))
        return np.asarray([self._run_row(self._graph.tensors(row)) for row in rows], dtype=np.float32)

    def _run_row(self, tensors: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        extractor = self._net.create_extractor()
        for name, values in tensors.items():
            # ncnn has no batch axis; a Mat borrows its array, which `tensors` keeps alive. Weights stay a matrix.
            extractor.input(name, ncnn.Mat(values if name == "in2" else values[0]))
        status, output = extractor.extract("out0")
        if status != 0:
            raise DeviceError(f"ncnn failed with status {status}", "Run it on the CPU, or convert the model again.")
        return np.array(output.numpy(), dtype=np.float32).reshape(-1)

    def placement(self) -> Placement:
        """Layers with a Vulkan implementation, and those without."""
        return self._placement

    def close(self) -> None:
        """Release the model."""
        self._net.clear()


def open_artifact(artifact: Artifact, threads: int) -> NcnnRuntime:
    """Load on the CPU; raises like `NcnnRuntime`."""
    return NcnnRuntime(artifact.model_path, "cpu", "fp32", threads)


def open_on_gpu(artifact: Artifact, threads: int, precision: Precision, *, software_gpu: bool) -> NcnnRuntime:
    """Load on a GPU; a driver in software only with `software_gpu`. Raises DeviceError."""
    runtime = NcnnRuntime(artifact.model_path, "gpu", precision, threads)
    require_gpu(runtime.placement(), software_gpu=software_gpu)
    return runtime


def _open(path: Path, *, gpu: bool, half: bool, threads: int) -> Any:
    net = ncnn.Net()
    options = net.opt
    options.use_vulkan_compute, options.num_threads = gpu, threads
    options.use_fp16_packed = options.use_fp16_storage = half
    options.use_fp16_arithmetic = options.use_bf16_storage = options.use_bf16_packed = False
    if net.load_param(str(path.with_name(PARAM_FILE))) != 0 or net.load_model(str(path)) != 0:
        raise CheckpointError(f"ncnn cannot load {path}", "Convert the model again: `pocketbert ncnn`.")
    return net


def _place(net: Any) -> Placement:
    info = ncnn.get_gpu_info(0)
    layers = net.layers()
    refused = sorted({layer.type for layer in layers if not layer.support_vulkan})
    delegated = sum(layer.support_vulkan for layer in layers)
    # Layers in a row that change sides once make one part.
    sides = [layer.support_vulkan for layer in layers if layer.type not in ("Input", "MemoryData")]
    parts = sum(now and not before for before, now in zip([False, *sides], sides, strict=False))
    return Placement(
        accelerator="gpu",
        adapter=str(info.device_name()),
        software=info.type() == _CPU_TYPE,
        total=len(layers),
        delegated=delegated,
        partitions=parts,
        refused=tuple(f"{kind}: ncnn has no Vulkan implementation of this layer" for kind in refused),
    )

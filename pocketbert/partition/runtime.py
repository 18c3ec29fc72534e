"""Run a model in parts, in turn: the runtime of an artifact that `pocketbert partition` wrote."""

import mmap
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import PARTS_FILE, Artifact
from pocketbert.data.tokenize import Batch
from pocketbert.devices.agent.parts import run_in_turn
from pocketbert.errors import DeviceError
from pocketbert.partition.manifest import read_manifest
from pocketbert.partition.needs import MB
from pocketbert.runtimes.base import Placement, TensorSpec, fit_rows
from pocketbert.runtimes.host_lookup import with_host_inputs
from pocketbert.runtimes.litert_runtime import main_output


class PartsRuntime:
    """A model in parts on the CPU (LiteRT with XNNPACK), with the logits of the whole model, bit by bit.

    What is handed from part to part is held in memory where the limit leaves room for it beside the largest part, and
    in memory-mapped files otherwise; `mapped` makes them files always.
    """

    def __init__(self, path: Path, threads: int, *, mapped: bool = False) -> None:
        """Read parts.json; raises CheckpointError where a part is missing."""
        self._manifest = read_manifest(path)
        self._folder, self._threads, self._mapped = path.parent, threads, mapped
        self.name = f"litert {version('ai-edge-litert')} in {len(self._manifest.parts)} parts"
        self.inputs = tuple(TensorSpec(t.name, t.dtype, t.shape) for t in self._manifest.inputs)
        self._output = main_output(tensor.name for tensor in self._manifest.parts[-1].outputs)

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits, float32 [rows, classes]; shorter rows are padded, longer ones raise DeviceError."""
        given = with_host_inputs(self._folder / PARTS_FILE, batch)
        values = {name: rows[:, None] for name, rows in fit_rows(given, self.inputs).items()}
        parts = [part.model_dump() for part in self._manifest.parts]
        paths = [str(self._folder / part.file) for part in self._manifest.parts]
        try:
            logits = run_in_turn(parts, paths, values, self._output, self._hold, self._threads)
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DeviceError(
                f"a part in {self._folder} cannot be run: {reason}", "Run `pocketbert partition` again."
            ) from error
        return np.array(logits[:, 0], dtype=np.float32)

    def _hold(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Room for what a part hands over, [rows, *shape]."""
        # What one row hands over is part of the plan.
        room = self._manifest.max_memory_mb * MB - self._manifest.largest_need_bytes
        if not self._mapped and (shape[0] - 1) * self._manifest.handed_over_bytes <= room:
            return np.empty(shape, dtype)
        with tempfile.TemporaryFile(prefix="pocketbert-parts-") as file:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            file.truncate(size)
            # The mapping keeps the nameless file, and with it its place on disk, until the array is dropped.
            return np.frombuffer(mmap.mmap(file.fileno(), size), dtype).reshape(shape)

    def placement(self) -> Placement:
        """All on the CPU."""
        return Placement(total=sum(part.operators for part in self._manifest.parts))

    def close(self) -> None:
        """Nothing is held between runs."""


def open_artifact(artifact: Artifact, threads: int) -> PartsRuntime:
    """The runtime of an artifact in parts; raises CheckpointError."""
    return PartsRuntime(artifact.model_path, threads)

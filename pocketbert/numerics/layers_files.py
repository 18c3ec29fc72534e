"""The layers' outputs of an ONNX or TFLite file of any origin, fp32, fp16 or quantized."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.tokenize import Batch
from pocketbert.errors import ProofError
from pocketbert.inspection.graph import ModelFile
from pocketbert.inspection.onnx_file import read_onnx
from pocketbert.inspection.tflite_file import read_tflite
from pocketbert.numerics.fusion_bases import read_bases
from pocketbert.numerics.layers import Array, States, name_layers
from pocketbert.numerics.layers_graph import LayerGraph
from pocketbert.numerics.layers_onnx import OnnxTap, OnnxValues
from pocketbert.numerics.layers_tflite import TfliteTap, TfliteValues, signature_names
from pocketbert.runtimes.host_lookup import with_host_inputs

Arrays = Sequence[NDArray[Any]]


class FileLayers:
    """A file whose layers can be read, `output` the position of its logits; raises ProofError where it has no blocks.

    `places` says which value of the file each layer's output is, known once a row was run: shapes are seen only then.
    """

    def __init__(self, path: Path, output: int = 0) -> None:
        self._path = path
        model = read_onnx(path) if path.suffix == ".onnx" else read_tflite(path)
        self._tap = OnnxTap(path) if path.suffix == ".onnx" else TfliteTap(path)
        self.inputs, outputs = _ends(path, model)
        self._graph = LayerGraph(model.graph, outputs[output])
        self._encoder: frozenset[str] = frozenset()
        self._values: OnnxValues | TfliteValues | None = None
        self._bases = read_bases(path)
        self.places: dict[str, str] = {}

    def run(self, arrays: Arrays) -> States:
        """The layers' outputs for the inputs of one row in the file's order (a static batch repeats the row).

        Raises ProofError where the last layer cannot be told, DeviceError where the engine refuses the file.
        """
        if self._values is None:
            self._locate(arrays)
            self._values = self._tap.open(list(dict.fromkeys(self.places.values())))
        values, tokens = self._values.run(arrays), _tokens(arrays)
        # Integers have lost their scale: such a layer cannot be read.
        return {
            name: self._row(values[place], name, tokens)
            for name, place in self.places.items()
            if not np.issubdtype(values[place].dtype, np.integer)
        }

    def _locate(self, example: Arrays) -> None:
        graph = self._graph
        seen = self._tap.open([*graph.blocks, *graph.last_candidates()], exact=False).run(example)
        last = self._last(seen, _tokens(example))
        encoder = [*graph.blocks, last]
        self.places = name_layers(encoder, [*graph.head_inputs(last), graph.output])
        self._encoder = frozenset(list(self.places)[: len(encoder)])

    def _last(self, seen: Mapping[str, NDArray[Any]], tokens: int) -> str:
        """The last value that has the blocks' shape: tokens times width, whatever the batch axes are."""
        block = seen[self._graph.blocks[0]]
        alike = [
            v for v in self._graph.last_candidates() if v != self._graph.output and _shape(seen[v]) == _shape(block)
        ]
        if block.size % (tokens * block.shape[-1]) or not alike:
            raise ProofError(
                f"{self._path}: the last layer's output cannot be told from the graph (blocks are {list(block.shape)})",
                "Compare its logits alone.",
            )
        return alike[-1]

    def _row(self, value: NDArray[Any], name: str, tokens: int) -> Array:
        rows = value.reshape(-1, value.shape[-1])[: tokens if name in self._encoder else 1]
        own = np.asarray(rows, dtype=np.float32)
        return self._bases[name].restore(own) if name in self._bases else own


class ArtifactStates:
    """The layers of a file of our own: inputs are bound by name."""

    def __init__(self, path: Path) -> None:
        self._path, self._layers = path, FileLayers(path)
        self._dtype = np.int64 if path.suffix == ".onnx" else np.int32

    @property
    def places(self) -> Mapping[str, str]:
        """Where each layer's output is found."""
        return self._layers.places

    def states(self, row: Batch) -> States:
        """The layers' outputs for a batch of one row."""
        given = with_host_inputs(self._path, row)
        dtypes = [np.float32 if given is not row else self._dtype for _ in self._layers.inputs]
        return self._layers.run([given[n].astype(t) for n, t in zip(self._layers.inputs, dtypes, strict=True)])


def _tokens(arrays: Arrays) -> int:
    """Tokens of a row: the last axis of ids and masks, which embeddings looked up on the host do not have."""
    return next(int(array.shape[-1]) for array in arrays if array.ndim < 3)


def _shape(value: NDArray[Any]) -> tuple[int, int]:
    return value.size, value.shape[-1] if value.ndim else 1


def _ends(path: Path, model: ModelFile) -> tuple[tuple[str, ...], list[str]]:
    """The inputs' names (a signature's where there is one) and the outputs' values, in the file's order."""
    if path.suffix == ".onnx":
        return tuple(spec.name for spec in model.inputs), [spec.name for spec in model.outputs]
    named, outputs = signature_names(path)
    return tuple(named.get(value, name) for value, name in model.graph.inputs.items()), outputs

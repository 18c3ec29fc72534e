"""One of the two models of a comparison, opened from whatever names it."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import read_artifact
from pocketbert.comparison.binding import Binding, bind
from pocketbert.comparison.engines import Array, RowEngine, open_engine
from pocketbert.comparison.host_inputs import host_inputs
from pocketbert.data.dataset import read_labels
from pocketbert.data.tokenize import Batch
from pocketbert.errors import DeviceError, ProofError
from pocketbert.inspection.inspect import find_model, read_model
from pocketbert.numerics.layers import States
from pocketbert.runtimes.base import Runtime, TensorSpec

Logits = NDArray[np.float32]


def open_side(path: Path) -> "Side":
    """Open an artifact's folder, an .onnx or .tflite file or a torch folder.

    Raises CheckpointError where it is missing or damaged (its structure is read first), DeviceError where the
    engine refuses it, ProofError where its inputs or outputs are not those of a classifier.
    """
    found = find_model(path)
    read_model(found)
    limit = read_artifact(path).card.max_length if (path / "artifact.json").is_file() else None
    return TorchSide(found, limit) if found.is_dir() else FileSide(found, open_engine(found), limit)


class TorchSide:
    """The folder of a classifier that pocketbert wrote.

    Both kinds of side have: `path`; `engine`, its name and version; `length`, tokens of a static input; `max_length`,
    tokens that it may be given at most (both None where unknown); `roles` of its inputs; `assumed`, sentences;
    `own_ids`, the model's id of each id in a row (None: the same).
    """

    def __init__(self, path: Path, max_length: int | None) -> None:
        from pocketbert.modeling.checkpoints import load_classifier
        from pocketbert.runtimes.torch_runtime import TorchRuntime

        model = load_classifier(path)
        self.path = path
        self.length: int | None = None
        limit = getattr(model.encoder.config, "max_position_embeddings", None)
        self.max_length: int | None = max_length or limit
        self.roles = ("input_ids", "attention_mask", *(["token_type_ids"] if model.uses_token_types else []))
        self.assumed: list[str] = []
        self.own_ids: NDArray[np.int32] | None = None
        self._model = model
        self._runtime: Runtime = TorchRuntime(model, threads=1)
        self.engine = self._runtime.name

    def run(self, row: Batch) -> Logits:
        """Logits [classes] of a batch of one row."""
        return self._runtime.run(translated(row, self.own_ids))[0]

    def layers(self) -> Callable[[Batch], States]:
        """What gives the layers' outputs of a batch of one row."""
        from pocketbert.numerics.layers_torch import TorchStates

        states = TorchStates(self._model).states
        return lambda row: states(translated(row, self.own_ids))


@dataclass
class FileSide:
    """An ONNX or TFLite file of any origin."""

    path: Path
    source: RowEngine
    max_length: int | None
    assumed: list[str] = field(default_factory=list)
    own_ids: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        host = host_inputs(self.path, self.source.inputs)
        self._look_up = host.look_up if host else None
        # What a row is bound to: the file's own inputs, or ids where the host looks the embeddings up.
        self.inputs: tuple[TensorSpec, ...] = host.inputs if host else self.source.inputs
        self.binding: Binding = bind(self.inputs)
        self.engine = self.source.name
        lengths = {spec.shape[-1] for spec in self.inputs if spec.shape and spec.shape[-1] is not None}
        if len(lengths) > 1:
            raise ProofError(f"{self.path}: inputs of several lengths {sorted(lengths)}", "Export it with one length.")
        self.length: int | None = next(iter(lengths), None)
        self._output = _choose_output(self.path, self.source.outputs, self.assumed)
        self.assumed.extend(self.binding.assumed)
        if host:
            self.assumed.append("it reads embeddings: they are looked up in the tables beside it")
        wide = [s.name for s in self.inputs if s.dtype == "int64"] if self.path.suffix == ".tflite" else []
        if wide:
            self.assumed.append(f"int64 inputs ({', '.join(wide)}) are fed int64 ids")

    def arrays(self, row: Batch, roles: tuple[str, ...] | None = None) -> list[Array]:
        """What the file's inputs get for a batch of one row, padded to the static length and batch, in their order."""
        own = translated(row, self.own_ids)
        bound = [self._array(spec, own, role) for spec, role in zip(self.inputs, roles or self.roles, strict=True)]
        return self._look_up(bound) if self._look_up else bound

    def output(self, row: Batch, roles: tuple[str, ...] | None = None) -> Logits:
        """The chosen output as the file gives it; raises DeviceError."""
        return np.asarray(self.source.run(self.arrays(row, roles))[self._output], dtype=np.float32)

    def run(self, row: Batch, roles: tuple[str, ...] | None = None) -> Logits:
        """Logits [classes] of a batch of one row, padded to the static length and repeated to the static batch.

        `roles` are tried instead of the file's own. Raises DeviceError and ProofError.
        """
        output = self.output(row, roles)
        if output.ndim == 1:
            return output
        if math.prod(output.shape[1:-1]) != 1:
            raise ProofError(
                f"{self.path}: its output has shape {list(output.shape)}, not [rows, classes]",
                "Compare classifiers; for masked-language models name --task fill-mask.",
            )
        return output.reshape(-1, output.shape[-1])[0]

    def layers(self) -> Callable[[Batch], States]:
        """What gives the layers' outputs of a batch of one row; raises ProofError where they cannot be told."""
        from pocketbert.numerics.layers_files import FileLayers

        layers = FileLayers(self.path, self._output)
        return lambda row: layers.run(self.arrays(row))

    @property
    def roles(self) -> tuple[str, ...]:
        """The role of each input, in the file's order."""
        return self.binding.roles

    def reorder(self, roles: tuple[str, ...]) -> None:
        """Take the inputs in another order of roles."""
        self.binding = Binding(roles, self.binding.assumed, self.binding.guessed)

    def _array(self, spec: TensorSpec, row: Batch, role: str) -> Array:
        values = row["input_ids"] * 0 + np.arange(row["input_ids"].shape[1]) if role == "position_ids" else row[role]
        width = self.length or values.shape[1]
        if values.shape[1] > width:
            raise DeviceError(f"a row of {values.shape[1]} tokens for {self.path} of {width}", "Truncate the rows.")
        if role == "position_ids":
            padded = np.arange(width)[None].repeat(len(values), axis=0)
        else:
            padded = np.pad(values, ((0, 0), (0, width - values.shape[1])))
        batch = spec.shape[0] if len(spec.shape) == 2 and spec.shape[0] else 1
        shaped = padded[0] if len(spec.shape) == 1 else padded.repeat(batch, axis=0)
        return shaped.astype(spec.dtype)


Side = TorchSide | FileSide


def translated(row: Batch, ids: NDArray[np.int32] | None) -> Batch:
    """The row under a model's own ids."""
    return row if ids is None else {**row, "input_ids": ids[row["input_ids"]]}


def _choose_output(path: Path, outputs: tuple[TensorSpec, ...], assumed: list[str]) -> int:
    """Index of the logits: by name, else the only output, else the first of two dimensions."""
    named = [i for i, spec in enumerate(outputs) if spec.name.split(":")[0].lower().endswith("logits")]
    if named:
        return named[0]
    flat = [i for i, spec in enumerate(outputs) if len(spec.shape) <= 2]
    if not outputs or (len(outputs) > 1 and not flat):
        raise ProofError(f"{path} has no output [rows, classes]", "Compare classifiers.")
    chosen = 0 if len(outputs) == 1 else flat[0]
    assumed.append(f"output {chosen} ({outputs[chosen].name!r}) is taken as the logits")
    return chosen


def class_names(path: Path) -> tuple[str, ...] | None:
    """Names of the classes beside a model: labels.json, else config.json's id2label, else None."""
    folder = path if path.is_dir() else path.parent
    if (folder / "labels.json").is_file():
        return read_labels(folder).names
    if (folder / "config.json").is_file():
        named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("id2label")
        if isinstance(named, dict):
            return tuple(str(named[key]) for key in sorted(named, key=int))
    return None


def is_multi_label(path: Path) -> bool:
    """Whether labels.json beside a model says that a row may have several classes."""
    folder = path if path.is_dir() else path.parent
    return (folder / "labels.json").is_file() and read_labels(folder).problem_type == "multi_label"

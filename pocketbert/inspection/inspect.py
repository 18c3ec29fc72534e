"""`pocketbert inspect FILE`: everything about a model file that can be known without running it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pocketbert.artifacts import read_artifact
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import CheckpointError, ParamsError
from pocketbert.inspection.graph import ModelFile, OpUse
from pocketbert.inspection.lookups import Lookup, find_lookups
from pocketbert.inspection.op_versions import OpNeed, Version, lowest_runtime, op_need
from pocketbert.inspection.opset_versions import onnx_needs
from pocketbert.inspection.parts import bytes_by_dtype, bytes_by_part
from pocketbert.inspection.target import find_target

SUFFIXES = (".tflite", ".onnx")
_RANDOM_OPS = {
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    *("MULTINOMIAL", "RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM"),
}


@dataclass(frozen=True)
class Inspection:
    """A model file and what follows from it."""

    path: Path
    model: ModelFile
    # TFLite: one a (operator, version). ONNX: the opset and the operators of other domains. Empty for torch.
    needs: tuple[OpNeed, ...]
    # The runtime to judge against: its version, and the device where one was named.
    target: str | None
    lookups: tuple[Lookup, ...]
    vocabulary: int | None
    bytes_by_part: Mapping[str, int]
    bytes_by_dtype: Mapping[str, int]

    @property
    def lowest_runtime(self) -> str | None:
        """The lowest runtime (TFLite, ONNX Runtime) that knows every operator that the table knows."""
        return lowest_runtime(list(self.needs))

    @property
    def refused(self) -> tuple[OpNeed, ...]:
        """Operators that the target runtime is too old for."""
        return tuple(need for need in self.needs if need.too_old)

    @property
    def out_of_bounds(self) -> tuple[Lookup, ...]:
        """Lookups that run past their table for some id of the vocabulary."""
        return tuple(lookup for lookup in self.lookups if lookup.verdict == "out of bounds")

    @property
    def random(self) -> tuple[OpUse, ...]:
        """Operators that draw random numbers: a dropout that was exported in training mode."""
        return tuple(use for use in self.model.ops if use.op in _RANDOM_OPS)

    @property
    def fine(self) -> bool:
        """Nothing is known that would stop this file on its target or make its answers chance."""
        return not self.refused and not self.out_of_bounds and not self.random

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        model = self.model
        return {
            "path": str(self.path),
            "format": model.format,
            "size_bytes": model.size_bytes,
            **model.facts,
            "inputs": [asdict(spec) for spec in model.inputs],
            "outputs": [asdict(spec) for spec in model.outputs],
            "signatures": [asdict(signature) for signature in model.signatures],
            "ops": [asdict(use) for use in model.ops],
            "custom_ops": [use.op for use in model.ops if use.custom],
            "runtime_needs": [
                {"op": n.use.op, "version": n.use.version, "runtime": n.runtime, "too_old": n.too_old, "note": n.note}
                for n in self.needs
            ],
            "lowest_runtime": self.lowest_runtime,
            "target_runtime": self.target,
            "bytes_by_part": dict(self.bytes_by_part),
            "bytes_by_dtype": dict(self.bytes_by_dtype),
            "vocabulary_size": self.vocabulary,
            "random_ops": [use.op for use in self.random],
            "lookups": [lookup.as_dict() for lookup in self.lookups],
            "fine": self.fine,
        }


def inspect_file(path: Path, *, runtime: str | None = None, vocabulary: int | None = None) -> Inspection:
    """Inspect a .tflite or .onnx file, a torch folder, or the folder of an artifact.

    `runtime` is the version of TFLite or ONNX Runtime, or a device of devices.yaml; `vocabulary` the number of token
    ids, by default that of the tokenizer beside the file. Raises CheckpointError on a missing or damaged file,
    ParamsError on a bad version and an unknown device.
    """
    found = find_model(path)
    model = read_model(found)
    if runtime is not None and model.format == "torch":
        raise ParamsError(
            f"{found} is a torch model, and --runtime is that of TFLite or ONNX Runtime",
            "Leave --runtime out, or name a .tflite or .onnx file.",
        )
    target = find_target(runtime, model.format) if runtime is not None else None
    if vocabulary is None:
        vocabulary = _vocabulary_beside(found)
    return Inspection(
        path=found,
        model=model,
        needs=tuple(_needs(model, target.version if target else None)),
        target=target.name if target else None,
        lookups=tuple(find_lookups(model, vocabulary)),
        vocabulary=vocabulary,
        bytes_by_part=bytes_by_part(model),
        bytes_by_dtype=bytes_by_dtype(model),
    )


def find_model(path: Path) -> Path:
    """The .tflite or .onnx file that a path names, or the folder of a torch model; raises CheckpointError."""
    if path.is_file():
        if path.suffix in SUFFIXES:
            return path
        raise CheckpointError(
            f"{path} is no model file", f"Name a file ending in {' or '.join(SUFFIXES)}, or a folder."
        )
    if not path.is_dir():
        raise CheckpointError(f"{path} does not exist", "Name a .tflite or .onnx file, or the folder of a model.")
    if (path / "artifact.json").is_file():
        artifact = read_artifact(path)
        if artifact.in_parts:
            raise CheckpointError(f"{path} holds a model in parts", "Name one of its parts, a .tflite file.")
        return path if artifact.card.format == "torch" else artifact.model_path
    files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
    if len(files) > 1:
        raise CheckpointError(f"{path} holds {', '.join(p.name for p in files)}", "Name one of the files.")
    if files:
        return files[0]
    if (path / "config.json").is_file():
        return path
    raise CheckpointError(
        f"{path} holds no model", "A model is a .tflite or .onnx file, or a folder of save_pretrained."
    )


def read_model(path: Path) -> ModelFile:
    """Read what `find_model` found; raises CheckpointError."""
    try:
        if path.suffix == ".tflite":
            from pocketbert.inspection.tflite_file import read_tflite

            return read_tflite(path)
        if path.suffix == ".onnx":
            from pocketbert.inspection.onnx_file import read_onnx

            return read_onnx(path)
        from pocketbert.inspection.torch_folder import read_torch

        return read_torch(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}", "Check its rights.") from error


def _needs(model: ModelFile, target: Version | None) -> Iterable[OpNeed]:
    if model.format == "tflite":
        return (op_need(use, target) for use in model.ops)
    return onnx_needs(model, target) if model.format == "onnx" else ()


def _vocabulary_beside(path: Path) -> int | None:
    folder = path if path.is_dir() else path.parent
    return TextEncoder(folder).vocabulary_size if (folder / "tokenizer.json").is_file() else None

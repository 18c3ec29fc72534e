"""How the layers' states of a fused file lie, written beside it: by this they are read back into the model's own.

Bound to its model by the model's SHA-256: the bases of another file, or of the one that was here before, would make
right layers look wrong, and wrong ones right.
"""

import hashlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from pocketbert.errors import ProofError
from pocketbert.numerics.fusion import Basis, Exact, Weights

# model.tflite has model.bases.npz.
BASES_SUFFIX = ".bases.npz"
_MODEL = "model_sha256"


def write_bases(weights: Weights | None, model: Path) -> None:
    """Write the bases of a graph's layers beside its file `model`; nothing where all layers have the model's own."""
    bases = weights.bases if weights else {}
    parts = {
        f"{layer}/{part}": value
        for layer, basis in bases.items()
        for part, value in (("scale", basis.scale), ("shift", basis.shift))
        if value is not None
    }
    _write(parts, model)


def copy_bases(source: Path, target: Path) -> None:
    """Give `target`, made of `source` layer by layer (quantized), its bases; raises ProofError like `read_bases`."""
    _write(_read(source), target)


def read_bases(model: Path) -> dict[str, Basis]:
    """The bases of a .tflite file's layers by name; empty where the layers have the model's own.

    Raises ProofError where the file beside it is another model's.
    """
    parts = _read(model)
    layers = dict.fromkeys(key.rsplit("/", 1)[0] for key in parts)
    return {layer: Basis(parts.get(f"{layer}/scale"), parts.get(f"{layer}/shift")) for layer in layers}


def _write(parts: dict[str, Exact], model: Path) -> None:
    path = model.with_suffix(BASES_SUFFIX)
    if model.suffix != ".tflite":
        return
    if parts:
        np.savez(path, allow_pickle=False, **parts, **{_MODEL: np.array(_digest(model))})
    else:
        # Of the file that was here before.
        path.unlink(missing_ok=True)


def _read(model: Path) -> dict[str, Exact]:
    path = model.with_suffix(BASES_SUFFIX)
    # A model.onnx may lie beside a model.tflite, whose bases they are.
    if model.suffix != ".tflite" or not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = {key: file[key] for key in file.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise ProofError(f"{path} cannot be read: {error}", _WAY_OUT) from error
    if str(parts.pop(_MODEL, "")) != _digest(model):
        raise ProofError(f"{path} does not belong to {model}: it was written for a file of another hash", _WAY_OUT)
    return parts


_WAY_OUT = "Export (or quantize) the model again, which writes both; do not copy one without the other."


def _digest(model: Path) -> str:
    with model.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

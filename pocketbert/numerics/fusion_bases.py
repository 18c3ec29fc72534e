"""How the layers' states of a fused file lie, written beside it: by this they are read back into the model's own."""

from pathlib import Path

import numpy as np

from pocketbert.numerics.fusion import Basis, Weights

# model.tflite has model.bases.npz.
BASES_SUFFIX = ".bases.npz"


def write_bases(weights: Weights, model: Path) -> None:
    """Write the bases of a graph's layers beside its file `model`; nothing where all layers have the model's own."""
    parts = {
        f"{layer}/{part}": value
        for layer, basis in weights.bases.items()
        for part, value in (("scale", basis.scale), ("shift", basis.shift))
        if value is not None
    }
    if parts:
        np.savez(model.with_suffix(BASES_SUFFIX), allow_pickle=False, **parts)
    else:
        # Of the file that was here before.
        model.with_suffix(BASES_SUFFIX).unlink(missing_ok=True)


def read_bases(model: Path) -> dict[str, Basis]:
    """The bases of a model file's layers by name; empty where the layers have the model's own."""
    path = model.with_suffix(BASES_SUFFIX)
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        parts = {key: file[key] for key in file.files}
    layers = dict.fromkeys(key.rsplit("/", 1)[0] for key in parts)
    return {layer: Basis(parts.get(f"{layer}/scale"), parts.get(f"{layer}/shift")) for layer in layers}

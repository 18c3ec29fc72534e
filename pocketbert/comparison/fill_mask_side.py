"""A masked-language model of either kind, run on one row at a time."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import read_artifact
from pocketbert.comparison.engines import open_engine
from pocketbert.comparison.explain import explain_nonfinite
from pocketbert.comparison.rows import Row
from pocketbert.comparison.side import FileSide
from pocketbert.data.tokenize import Batch
from pocketbert.errors import ProofError
from pocketbert.export.task import is_masked_lm
from pocketbert.inspection.inspect import find_model, read_model

Logits = NDArray[np.float32]


class MaskedLmSide:
    """The folder of a torch masked-language model; has what the other kind of side has (see `TorchSide`)."""

    def __init__(self, path: Path) -> None:
        import torch

        from pocketbert.export.fill_mask import load_masked_lm, takes_token_types

        self.path = path
        self._model = load_masked_lm(path)
        self.length: int | None = None
        self.max_length: int | None = getattr(self._model.config, "max_position_embeddings", None)
        types = ["token_type_ids"] if takes_token_types(self._model) else []
        self.roles = ("input_ids", "attention_mask", *types)
        self.assumed: list[str] = []
        self.engine = f"torch {torch.__version__}"

    def output(self, row: Batch) -> Logits:
        """Logits [1, tokens, vocabulary] of a batch of one row."""
        import torch

        feed = {role: torch.from_numpy(row[role].astype(np.int64)) for role in self.roles}
        with torch.inference_mode():
            logits: Logits = self._model(**feed).logits.float().numpy()
        return logits


LmSide = MaskedLmSide | FileSide


def is_fill_mask(path: Path) -> bool:
    """Whether a torch folder, or a file's output named logits of three dimensions, is a masked-language model's."""
    found = find_model(path)
    if found.is_dir():
        return is_masked_lm(found)
    outputs = read_model(found).outputs
    return any(len(spec.shape) == 3 and "logits" in spec.name.lower() for spec in outputs)


def open_lm_side(path: Path) -> LmSide:
    """Open a torch folder or an .onnx or .tflite file; raises CheckpointError, DeviceError and ProofError."""
    found = find_model(path)
    read_model(found)
    limit = read_artifact(path).card.max_length if (path / "artifact.json").is_file() else None
    return MaskedLmSide(found) if found.is_dir() else FileSide(found, open_engine(found), limit)


def token_logits(side: LmSide, row: Row, kind: str) -> Logits:
    """Logits [tokens, vocabulary] of one row, cut to its own tokens; raises ProofError on a NaN at a real position."""
    output = side.output(row)
    if output.ndim != 3:
        raise ProofError(
            f"{side.path}: its output has shape {list(output.shape)}, not [rows, tokens, vocabulary]",
            "Compare masked-language models; for classifiers leave --task out.",
        )
    logits = output[0, : row["input_ids"].shape[1]]
    if kind == "data" and not np.isfinite(logits[row["attention_mask"][0] > 0]).all():
        error = ProofError(f"{side.path} gives NaN or infinite logits", "Look at its mask and its weights.")
        raise explain_nonfinite(side, [(kind, row)], error)
    return logits

"""A built model on disk: one folder with the model file, its tokenizer, labels.json and artifact.json."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pocketbert.data.dataset import LabelSet, write_labels
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import CheckpointError

Format = Literal["torch", "onnx", "tflite", "ncnn"]
# The model file of an artifact that `pocketbert partition` cut: the list of its parts.
PARTS_FILE = "parts.json"
# What a .tflite file needs beside it to run: tables that the host looks up.
COMPANIONS = ("host_embeddings.npy", "host_positions.npy")


class ArtifactCard(BaseModel):
    """artifact.json: what a folder holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    format: Format
    # "none" for an unquantized model, else the recipe's name; `options` are the recipe's overrides.
    recipe: str = "none"
    options: dict[str, bool | int | float | str | list[str]] = {}
    # Precision of the weights as stored: fp32, fp16, int8, ...
    precision: str = "fp32"
    model_file: str
    # Fixed length of the input, or None where it is dynamic up to `max_length`.
    sequence_length: int | None = None
    max_length: int
    # As in the recipe's params; a trimmed one has a tokenizer of its own.
    vocabulary: Literal["full", "trimmed", "shared"] | int = "full"
    # Of a TFLite file: export_tflite's graph profile, and the fusions that its tensors went through.
    graph_profile: Literal["stock", "delegate", "embeddings"] | None = None
    fused: tuple[str, ...] = ()


class Artifact(BaseModel):
    """An artifact card and the folder that it describes."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    card: ArtifactCard

    @property
    def name(self) -> str:
        """Unique name: teacher, student, onnx-fp32, tflite-static_wi8_ai8, ..."""
        return self.card.name

    @property
    def model_path(self) -> Path:
        """The model file itself."""
        return self.folder / self.card.model_file

    @property
    def in_parts(self) -> bool:
        """Whether the model is several files that are run in turn (pocketbert/partition)."""
        return self.card.model_file == PARTS_FILE

    @property
    def size_bytes(self) -> int:
        """Size of the model file (tokenizer and labels not counted)."""
        return self.model_path.stat().st_size

    def md5(self) -> str:
        """MD5 of the model file: the identity by which rows of different stages are joined."""
        with self.model_path.open("rb") as stream:
            return hashlib.file_digest(stream, "md5").hexdigest()


def write_artifact(folder: Path, card: ArtifactCard, labels: LabelSet, encoder: TextEncoder) -> Artifact:
    """Complete a folder that already holds the model file: artifact.json, labels.json and the tokenizer."""
    (folder / "artifact.json").write_text(card.model_dump_json(indent=1), encoding="utf-8")
    write_labels(labels, folder)
    if encoder.folder.resolve() != folder.resolve():
        encoder.copy_to(folder)
    return Artifact(folder=folder, card=card)


def read_artifact(folder: Path) -> Artifact:
    """Read a folder written by `write_artifact`; raises CheckpointError."""
    try:
        card = ArtifactCard.model_validate_json((folder / "artifact.json").read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{folder} is not a pocketbert artifact: {reason}",
            "Name a folder that holds artifact.json, such as models/tflite.",
        ) from error
    artifact = Artifact(folder=folder, card=card)
    if not artifact.model_path.is_file():
        raise CheckpointError(f"{artifact.model_path} is missing", "Run `dvc repro` to build it again.")
    return artifact


def read_artifacts(folders: Iterable[Path]) -> list[Artifact]:
    """Read several artifacts, in the given order."""
    return [read_artifact(folder) for folder in folders]

"""What an artifact's bytes are spent on."""

from pocketbert.artifacts import Artifact
from pocketbert.data.tokenize import TextEncoder
from pocketbert.inspection.graph import ModelFile
from pocketbert.inspection.onnx_file import read_onnx
from pocketbert.inspection.parts import bytes_by_part
from pocketbert.inspection.tflite_file import read_tflite
from pocketbert.inspection.torch_folder import read_torch


def size_columns(artifact: Artifact) -> dict[str, int]:
    """Bytes of the embeddings, the encoder and the head, of all else in the model file, and the tokenizer's tokens.

    The four sizes add up to that of the file; scales count with what they scale.
    """
    parts = bytes_by_part(_read(artifact))
    named = {f"{part}_bytes": parts[part] for part in ("embeddings", "encoder", "head")}
    return {
        **named,
        "other_bytes": artifact.size_bytes - sum(named.values()),
        "vocabulary_tokens": TextEncoder(artifact.folder).vocabulary_size,
    }


def _read(artifact: Artifact) -> ModelFile:
    if artifact.card.format == "torch":
        return read_torch(artifact.folder)
    return (read_onnx if artifact.card.format == "onnx" else read_tflite)(artifact.model_path)

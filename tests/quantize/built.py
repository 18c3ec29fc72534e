"""Building one artifact, and what it holds."""

import json
from pathlib import Path

import numpy as np
import onnx as onnx_format
from ai_edge_litert.interpreter import Interpreter

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.data.dataset import Split
from pocketbert.params import QuantizeParams
from pocketbert.quantize.run import quantize_artifact


def quantize(
    recipe: dict[str, object], sources: list[Artifact], train: Split, folder: Path, clip: float | None = None
) -> tuple[Artifact, dict[str, object]]:
    params = QuantizeParams.model_validate({"calibration": {"rows": 12, "clip": clip}, "recipes": {"it": recipe}})
    quantize_artifact(params, "it", {a.card.format: a.folder for a in sources}, train, folder)
    return read_artifact(folder), json.loads((folder / "recipe.json").read_text())


def stored_types(artifact: Artifact) -> dict[str, str]:
    tensors = onnx_format.load(artifact.model_path).graph.initializer
    return {t.name: onnx_format.TensorProto.DataType.Name(t.data_type) for t in tensors}


def int8_tensors(artifact: Artifact) -> list[dict[str, object]]:
    details = Interpreter(model_path=str(artifact.model_path)).get_tensor_details()
    return [tensor for tensor in details if tensor["dtype"] == np.int8]

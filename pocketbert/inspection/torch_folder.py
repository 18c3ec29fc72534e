"""Read a torch folder's weights by the header of its safetensors file; no weight is loaded."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from pocketbert.errors import CheckpointError
from pocketbert.inspection.graph import Constant, Graph, ModelFile, OpUse
from pocketbert.runtimes.base import TensorSpec

WEIGHTS = "model.safetensors"
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
           "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}  # fmt: skip
# transformers' model types without token types.
_WITHOUT_TYPES = ("distilbert", "roberta", "xlm-roberta")


def read_torch(folder: Path) -> ModelFile:
    """Read config.json and model.safetensors; raises CheckpointError where one is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    config, path = _config(folder), folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no {WEIGHTS}", "Save the model with safe_serialization=True.")
    try:
        with safe_open(path, framework="numpy") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118 (no mapping)
            constants = {name: _constant(name, part) for name, part in slices.items()}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}", "Copy or build it again.") from error
    encoder = config.get("encoder", config)
    names = ["input_ids", "attention_mask"]
    if encoder.get("model_type") not in _WITHOUT_TYPES:
        names.append("token_type_ids")
    classes = len(config.get("id2label") or ()) or None
    architecture = ", ".join(config.get("architectures") or ()) or str(config.get("model_type"))
    return ModelFile(
        format="torch",
        size_bytes=path.stat().st_size,
        inputs=tuple(TensorSpec(name, "int64", (None, None)) for name in names),
        outputs=(TensorSpec("logits", "float32", (None, classes)),),
        ops=_modules(config),
        graph=Graph((), constants, {}, {}),
        facts={"architecture": architecture, "encoder": str(encoder.get("model_type", "unknown"))},
    )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "Name a folder of save_pretrained.") from error
    return config


def _constant(name: str, part: Any) -> Constant:
    stored, shape = part.get_dtype(), tuple(part.get_shape())
    dtype = _DTYPES.get(stored, stored.lower())
    bits = int("".join(c for c in dtype if c.isdigit()) or 8)
    return Constant(name, dtype, shape, math.prod(shape) * bits // 8)


def _modules(config: dict[str, Any]) -> tuple[OpUse, ...]:
    """Leaf modules of a classifier that pocketbert wrote (on torch's meta device: no memory, no weights)."""
    if config.get("model_type") != "pocketbert":
        return ()
    import torch

    from pocketbert.modeling.classifier import PocketBertClassifier, PocketBertConfig

    with torch.device("meta"):
        model = PocketBertClassifier(PocketBertConfig.from_dict(config))
    counts = Counter(type(m).__name__ for m in model.modules() if not any(m.children()))
    return tuple(OpUse(name, None, count) for name, count in counts.most_common())

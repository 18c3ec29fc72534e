"""The task of a folder of save_pretrained, by its config.json; imports nothing heavy."""

import json
from pathlib import Path

TASKS = ("fill-mask", "text-classification")


def is_masked_lm(folder: Path) -> bool:
    """Whether a folder's config.json says that it holds a masked-language model."""
    path = folder / "config.json"
    if not path.is_file():
        return False
    architectures = json.loads(path.read_text(encoding="utf-8")).get("architectures") or []
    return any(str(name).endswith(("ForMaskedLM", "ForPreTraining")) for name in architectures)


def which_task(folder: Path) -> str:
    """The task that config.json gives away."""
    return "fill-mask" if is_masked_lm(folder) else "text-classification"

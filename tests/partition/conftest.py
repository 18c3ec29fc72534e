"""Small trained models of the three families, and quantized ones, as artifacts."""

from pathlib import Path

import pytest

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.data.dataset import Split
from pocketbert.params import QuantizeParams
from tests.export.trained import MAIN_FAMILIES, exported, make_texts

RECIPES = ("fp16", "dynamic_wi8_afp32", "dynamic_wi4_afp32", "static_wi8_ai8")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The artifact of each family, and of BERT by each recipe."""
    from pocketbert.quantize.run import quantize_artifact

    found = {family: read_artifact(exported(family).tflite) for family in MAIN_FAMILIES}
    texts, targets = make_texts(32, seed=5)
    recipes: dict[str, dict[str, object]] = {f"tflite-{name}": {"format": "tflite", "recipe": name} for name in RECIPES}
    # The tables keep a scale a block; 48 columns are no multiple of one.
    recipes["tflite-dynamic_wi4_afp32"]["options"] = {"block_size": 0}
    params = QuantizeParams.model_validate({"calibration": {"rows": 32}, "recipes": recipes})
    root = tmp_path_factory.mktemp("partition")
    for variant in recipes:
        quantize_artifact(
            params, variant, {"tflite": found["bert"].folder}, Split(texts, targets.numpy()), root / variant
        )
        found[variant] = read_artifact(root / variant)
    return found


@pytest.fixture(scope="session")
def bert(files: dict[str, Artifact]) -> Artifact:
    return files["bert"]


@pytest.fixture(scope="session")
def bert_path(bert: Artifact) -> Path:
    return bert.model_path

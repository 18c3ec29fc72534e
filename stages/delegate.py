"""Ask which operators of each TFLite artifact a GPU takes, and whether it computes right."""

from dataclasses import dataclass
from pathlib import Path

from pocketbert.params import Params
from pocketbert.stage import Metrics, run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    tflite: Path = Path("models/tflite")
    quantized: Path = Path("models/quantized")
    prepared: Path = Path("data/prepared")


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    results: Path = Path("results/delegate")


def delegate(params: Params, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Write what the rules predict and what the GPU did, an entry an artifact; return the headline figures."""
    from pocketbert.artifacts import read_artifacts
    from pocketbert.delegation.stage import delegate_artifacts

    recipes = params.quantize.recipes
    quantized = [inputs.quantized / variant for variant, recipe in recipes.items() if recipe.format == "tflite"]
    artifacts = read_artifacts([inputs.tflite, *quantized])
    return delegate_artifacts(params.delegate, artifacts, inputs.prepared, outputs.results)


if __name__ == "__main__":
    run_stage(delegate)

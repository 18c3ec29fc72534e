"""Build one quantized artifact."""

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pocketbert.artifacts import ArtifactCard, read_artifact, write_artifact
from pocketbert.data.dataset import Split, read_labels
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ExportError, PocketBertError
from pocketbert.params import QuantizeParams
from pocketbert.quantize.calibration import draw_rows
from pocketbert.quantize.recipes import find_recipe, variant_params
from pocketbert.stage import Metrics

RECIPE_FILE = "recipe.json"

_log = logging.getLogger("pocketbert")


def quantize_artifact(
    params: QuantizeParams, variant: str, sources: Mapping[str, Path], train: Split, folder: Path
) -> Metrics:
    """Quantize the artifact in `sources` of the variant's format into `folder`; return size, ratio and seconds.

    Writes the model file, recipe.json (the recipe as applied, its options and the digest of the calibration
    rows), the card, the labels and the tokenizer. Raises ParamsError for an unknown variant, recipe or option and
    ExportError where the quantizer fails.
    """
    recipe_params = variant_params(params, variant)
    recipe, options = find_recipe(variant, recipe_params)
    source = read_artifact(sources[recipe_params.format])
    started = time.monotonic()
    rows = None
    if recipe.calibrated:
        length = source.card.sequence_length or source.card.max_length
        rows = draw_rows(params.calibration, train, source.folder, length)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.card.model_file
    with _explained(variant, recipe_params.recipe, source.model_path):
        applied = recipe.function(recipe_params.recipe)(source.model_path, target, options, rows)
    record = {
        "recipe": recipe_params.recipe,
        "options": options.model_dump(),
        "source": source.name,
        "source_md5": source.md5(),
        "applied": applied,
        "calibration": {**params.calibration.model_dump(), "drawn": len(rows), "sha256": rows.digest} if rows else None,
    }
    _write_json(folder / RECIPE_FILE, record)
    card = ArtifactCard(
        name=variant,
        format=recipe_params.format,
        recipe=recipe_params.recipe,
        options=recipe_params.options,
        precision=recipe.precision,
        model_file=target.name,
        sequence_length=source.card.sequence_length,
        max_length=source.card.max_length,
    )
    artifact = write_artifact(folder, card, read_labels(source.folder), TextEncoder(source.folder))
    ratio = artifact.size_bytes / source.size_bytes
    _log.info("%s: %.1f MB, %.2f of %s", variant, artifact.size_bytes / 1e6, ratio, source.name)
    return {
        "size_bytes": artifact.size_bytes,
        "size_ratio": round(ratio, 4),
        "seconds": round(time.monotonic() - started, 2),
    }


@contextmanager
def _explained(variant: str, recipe: str, source: Path) -> Iterator[None]:
    try:
        yield
    except (PocketBertError, OSError):
        raise
    # The quantizers' own errors share no base class.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ExportError(
            f"{variant}: {recipe} failed on {source}: {reason}",
            f"Change quantize.recipes.{variant}.options or drop the variant.",
        ) from error


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

"""Build one quantized artifact."""

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketbert.artifacts import COMPANIONS, Artifact, ArtifactCard, read_artifact, write_artifact
from pocketbert.data.dataset import Split, read_labels
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ExportError, PocketBertError
from pocketbert.inspection.onnx_file import read_onnx
from pocketbert.inspection.parts import bytes_by_part
from pocketbert.inspection.tflite_file import read_tflite
from pocketbert.numerics.fusion_bases import copy_bases
from pocketbert.numerics.half_proof import prove_finite, scan_source
from pocketbert.params import QuantizeParams
from pocketbert.quantize.calibration import RECIPE_FILE, draw_rows
from pocketbert.quantize.recipes import find_recipe, variant_params
from pocketbert.quantize.vocabulary import Record, headline, source_in_use
from pocketbert.runtimes.host_lookup import with_host_inputs
from pocketbert.stage import Metrics

if TYPE_CHECKING:
    from pocketbert.quantize.sensitivity_study import Study

_log = logging.getLogger("pocketbert")


def quantize_artifact(
    params: QuantizeParams,
    variant: str,
    sources: Mapping[str, Path],
    train: Split,
    folder: Path,
    valid: Split | None = None,
    study: Path | None = None,
) -> Metrics:
    """Quantize the artifact in `sources` of the variant's format into `folder`; return its metrics.

    Writes the model file, recipe.json (the recipe as applied, its options and the digest of the calibration
    rows), the card, the labels and the tokenizer. Raises ParamsError for an unknown variant, recipe or option and
    ExportError where the quantizer fails. A trimmed vocabulary and `exclude: auto` are judged on `valid`; the file
    `study` gets what the latter found, or null for any other recipe.
    """
    chosen = variant_params(params, variant)
    find_recipe(variant, chosen)
    source = read_artifact(sources[chosen.format])
    with source_in_use(chosen.vocabulary, source, train, valid, chosen.vocabulary_rows) as (used, vocabulary):
        metrics, found = _quantize(params, variant, source, used, vocabulary, train, folder, valid)
    if study is not None:
        _write_json(study, found.as_dict() if found else None)
    return {**metrics, **({"vocabulary": headline(vocabulary)} if vocabulary else {})}


def _quantize(
    params: QuantizeParams,
    variant: str,
    original: Artifact,
    source: Artifact,
    vocabulary: Record | None,
    train: Split,
    folder: Path,
    valid: Split | None,
) -> tuple[Metrics, "Study | None"]:
    """Quantize `source`: the original itself, or the original with its vocabulary trimmed."""
    recipe_params = variant_params(params, variant)
    recipe, options = find_recipe(variant, recipe_params)
    started = time.monotonic()
    rows = None
    if recipe.calibrated:
        length = source.card.sequence_length or source.card.max_length
        rows = draw_rows(params.calibration, train, source.folder, length)
        rows = replace(rows, inputs=dict(with_host_inputs(source.model_path, rows.inputs)))
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.card.model_file
    card = ArtifactCard(
        name=variant,
        format=recipe_params.format,
        recipe=recipe_params.recipe,
        options=recipe_params.options,
        precision=recipe.precision,
        model_file=target.name,
        sequence_length=source.card.sequence_length,
        max_length=source.card.max_length,
        vocabulary=recipe_params.vocabulary,
        graph_profile=source.card.graph_profile,
        fused=source.card.fused,
    )
    for name in COMPANIONS:
        if (original.folder / name).exists():
            shutil.copyfile(original.folder / name, folder / name)
    half = scan_source(variant, source, train.texts, folder) if recipe.precision == "fp16" else None
    study = None
    with _explained(variant, recipe_params.recipe, source.model_path):
        if options.exclude == "auto":
            from pocketbert.quantize.sensitivity import resolve_auto

            options, study = resolve_auto(recipe_params, recipe, options, source, card, rows, valid)
        applied = recipe.function(recipe_params.recipe)(source.model_path, target, options, rows)
    copy_bases(original.model_path, target)
    parts = part_sizes(target)
    record = {
        "recipe": recipe_params.recipe,
        "options": options.model_dump(),
        "bytes": parts,
        "source": original.name,
        "source_md5": original.md5(),
        "vocabulary": vocabulary,
        "applied": applied,
        "calibration": {**params.calibration.model_dump(), "drawn": len(rows), "sha256": rows.digest} if rows else None,
    }
    _write_json(folder / RECIPE_FILE, record)
    artifact = write_artifact(folder, card, read_labels(source.folder), TextEncoder(source.folder))
    if half:
        prove_finite(artifact, train.texts)
    ratio = artifact.size_bytes / original.size_bytes
    _log.info("%s: %.1f MB, %.2f of %s", variant, artifact.size_bytes / 1e6, ratio, original.name)
    return {
        "size_bytes": artifact.size_bytes,
        "size_ratio": round(ratio, 4),
        "bytes": parts,
        "seconds": round(time.monotonic() - started, 2),
        **({"unsafe_in_fp16": len(half.findings)} if half else {}),
        **({"sensitivity_runs": study.runs, "excluded": len(study.exclude)} if study else {}),
    }, study


def part_sizes(model_file: Path) -> dict[str, int]:
    """Bytes of a .tflite or .onnx file by part of the model; "structure" is what is no weight."""
    model = read_tflite(model_file) if model_file.suffix == ".tflite" else read_onnx(model_file)
    parts = bytes_by_part(model)
    return {**parts, "structure": model.size_bytes - sum(parts.values())}


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


def _write_json(path: Path, document: dict[str, Any] | None) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

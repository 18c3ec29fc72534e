"""The recipes by format and name, with the options that each one takes.

A recipe is a function of the same name in the module of its format,

    recipe(source: Path, target: Path, options: Options, rows: CalibrationRows | None) -> dict

that writes the model file `target` and returns what it did, for recipe.json.
"""

import difflib
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pocketbert.errors import ParamsError
from pocketbert.params import QuantizeParams, RecipeParams
from pocketbert.quantize.options import (
    Fp16Options,
    Int4Options,
    OnnxDynamicInt8Options,
    OnnxFp16Options,
    OnnxInt4Options,
    OnnxStaticOptions,
    OnnxWeightOnlyOptions,
    RecipeOptions,
    TfliteDynamicInt4Options,
    TfliteStaticOptions,
)

if TYPE_CHECKING:
    from pocketbert.quantize.calibration import CalibrationRows

    RecipeFunction = Callable[[Path, Path, Any, CalibrationRows | None], dict[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """A recipe's options, what its weights are stored as, and where its function lives."""

    options: type[RecipeOptions]
    precision: str
    module: str
    calibrated: bool = False

    def function(self, name: str) -> "RecipeFunction":
        """The recipe itself; imports its quantization library."""
        loaded: RecipeFunction = getattr(importlib.import_module(self.module), name)
        return loaded


_ONNX, _TFLITE = "pocketbert.quantize.recipes_onnx", "pocketbert.quantize.recipes_tflite"

RECIPES: dict[str, dict[str, Recipe]] = {
    "onnx": {
        "fp16": Recipe(OnnxFp16Options, "fp16", _ONNX),
        "dynamic_int8": Recipe(OnnxDynamicInt8Options, "int8", _ONNX),
        "static_int8": Recipe(OnnxStaticOptions, "int8", _ONNX, calibrated=True),
        "weight_only_int8": Recipe(OnnxWeightOnlyOptions, "int8", _ONNX),
        "weight_only_int4": Recipe(OnnxInt4Options, "int4", _ONNX),
    },
    "tflite": {
        "fp16": Recipe(Fp16Options, "fp16", _TFLITE),
        "weight_only_wi8_afp32": Recipe(RecipeOptions, "int8", _TFLITE),
        "weight_only_wi4_afp32": Recipe(Int4Options, "int4", _TFLITE),
        "dynamic_wi8_afp32": Recipe(RecipeOptions, "int8", _TFLITE),
        "dynamic_wi4_afp32": Recipe(TfliteDynamicInt4Options, "int4", _TFLITE),
        "static_wi8_ai8": Recipe(TfliteStaticOptions, "int8", _TFLITE, calibrated=True),
    },
}


def variant_params(params: QuantizeParams, variant: str) -> RecipeParams:
    """The recipe parameters of a variant; raises ParamsError."""
    if variant not in params.recipes:
        raise ParamsError(f"quantize.recipes has no {variant!r}", _hint(variant, params.recipes))
    return params.recipes[variant]


def find_recipe(variant: str, params: RecipeParams) -> tuple[Recipe, RecipeOptions]:
    """The recipe of a variant and its validated options; raises ParamsError with the nearest known name."""
    where, known = f"quantize.recipes.{variant}", RECIPES[params.format]
    recipe = known.get(params.recipe)
    if recipe is None:
        raise ParamsError(f"{where}.recipe: no {params.format} recipe {params.recipe!r}", _hint(params.recipe, known))
    try:
        return recipe, recipe.options.model_validate(params.options)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            fix = _hint(name, recipe.options.model_fields)
            raise ParamsError(f"{where}.options: {params.recipe} has no option {name!r}", fix) from error
        raise ParamsError(
            f"{where}.options.{name} = {first['input']!r}: {first['msg']}",
            "pocketbert/quantize/options.py lists every option.",
        ) from error


def check_recipes(params: QuantizeParams) -> None:
    """Raise ParamsError for the first variant that names an unknown recipe or option."""
    for variant, recipe in params.recipes.items():
        find_recipe(variant, recipe)


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."

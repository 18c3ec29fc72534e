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
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from pocketbert.errors import ParamsError
from pocketbert.params import QuantizeParams, RecipeParams, Section

if TYPE_CHECKING:
    from pocketbert.quantize.calibration import CalibrationRows

    RecipeFunction = Callable[[Path, Path, Any, CalibrationRows | None], dict[str, Any]]


class OnnxFp16Options(Section):
    """Weights and computation in fp16."""

    # Inputs and outputs stay as they are (logits in fp32).
    keep_io_types: bool = True
    # Op types and node names that stay in fp32, beside those for which ONNX Runtime has no fp16 kernel.
    keep_fp32_ops: tuple[str, ...] = ()
    keep_fp32_nodes: tuple[str, ...] = ()


class OnnxDynamicInt8Options(Section):
    """Weights in int8; activations are quantized at run time, one scale a tensor."""

    operations: tuple[str, ...] = ("MatMul", "Gather")
    per_channel: bool = True
    weight_type: Literal["QInt8", "QUInt8"] = "QInt8"
    # 7-bit weights: needed only on x86 processors without VNNI, where int8 products saturate.
    reduce_range: bool = False
    exclude_nodes: tuple[str, ...] = ()


class TfliteOptions(Section):
    """Options of every TFLite recipe."""

    # Convert the embedding tables too (most of a small BERT's size).
    embeddings: bool = True
    # Regular expressions of output tensor names whose ops stay in float32.
    exclude: tuple[str, ...] = ()


class TfliteStaticOptions(TfliteOptions):
    """Which ops get calibrated int8 activations; the others compute in float32."""

    operations: tuple[str, ...] = ("FULLY_CONNECTED",)
    # An op is quantized dynamically where (max - min) / RMS of an activation exceeds this: a few huge values
    # would leave a typical one less than 256 / 32 = 8 steps.
    crest_factor_max: Annotated[float, Field(gt=0.0)] = 32.0


@dataclass(frozen=True)
class Recipe:
    """A recipe's options, what its weights are stored as, and where its function lives."""

    options: type[Section]
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
    },
    "tflite": {
        "fp16": Recipe(TfliteOptions, "fp16", _TFLITE),
        "weight_only_wi8_afp32": Recipe(TfliteOptions, "int8", _TFLITE),
        "dynamic_wi8_afp32": Recipe(TfliteOptions, "int8", _TFLITE),
        "static_wi8_ai8": Recipe(TfliteStaticOptions, "int8", _TFLITE, calibrated=True),
    },
}


def variant_params(params: QuantizeParams, variant: str) -> RecipeParams:
    """The recipe parameters of a variant; raises ParamsError."""
    if variant not in params.recipes:
        raise ParamsError(f"quantize.recipes has no {variant!r}", _hint(variant, params.recipes))
    return params.recipes[variant]


def find_recipe(variant: str, params: RecipeParams) -> tuple[Recipe, Section]:
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
            "pocketbert/quantize/recipes.py lists every option.",
        ) from error


def check_recipes(params: QuantizeParams) -> None:
    """Raise ParamsError for the first variant that names an unknown recipe or option."""
    for variant, recipe in params.recipes.items():
        find_recipe(variant, recipe)


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."

import pytest

from pocketbert.errors import ParamsError
from pocketbert.params import QuantizeParams, RecipeParams, load_params
from pocketbert.quantize.recipes import RECIPES, TfliteStaticOptions, check_recipes, find_recipe, variant_params


def test_the_shipped_params_name_known_recipes() -> None:
    check_recipes(load_params().quantize)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, known in RECIPES.items() for name in known])
def test_every_registered_recipe_has_a_documented_function(kind: str, name: str) -> None:
    function = RECIPES[kind][name].function(name)
    assert function.__name__ == name
    assert function.__doc__


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"format": "onnx", "recipe": "dynamic_int"}, "no onnx recipe 'dynamic_int'. Did you mean 'dynamic_int8'?"),
        ({"format": "onnx", "recipe": "static_wi8_ai8"}, "no onnx recipe 'static_wi8_ai8'"),
        (
            {"format": "onnx", "recipe": "dynamic_int8", "options": {"per_chanel": True}},
            "dynamic_int8 has no option 'per_chanel'. Did you mean 'per_channel'?",
        ),
        (
            {"format": "onnx", "recipe": "dynamic_int8", "options": {"weight_type": "QInt4"}},
            "quantize.recipes.v.options.weight_type = 'QInt4'",
        ),
        (
            {"format": "tflite", "recipe": "static_wi8_ai8", "options": {"crest_factor_max": -1}},
            "quantize.recipes.v.options.crest_factor_max = -1",
        ),
    ],
)
def test_what_is_unknown_is_named_with_the_nearest_name(params: dict[str, object], message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        find_recipe("v", RecipeParams.model_validate(params))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_variant_is_named_with_the_nearest_name() -> None:
    params = QuantizeParams.model_validate({"recipes": {"onnx-fp16": {"format": "onnx", "recipe": "fp16"}}})
    with pytest.raises(ParamsError, match="Did you mean 'onnx-fp16'"):
        variant_params(params, "onnx-fp61")


def test_options_override_defaults() -> None:
    params = RecipeParams(
        format="tflite", recipe="static_wi8_ai8", options={"operations": ["GELU"], "embeddings": False}
    )
    _, options = find_recipe("v", params)
    assert options == TfliteStaticOptions(operations=("GELU",), embeddings=False)

import pytest

from pocketbert.errors import ParamsError
from pocketbert.params import QuantizeParams, RecipeParams, load_params
from pocketbert.quantize.options import TfliteStaticOptions
from pocketbert.quantize.recipes import RECIPES, check_recipes, find_recipe, variant_params


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


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, known in RECIPES.items() for name in known])
def test_every_recipe_takes_a_list_and_auto_to_exclude_and_a_form_of_tables(kind: str, name: str) -> None:
    for exclude in (["layer.0"], "auto"):
        chosen = RecipeParams(format=kind, recipe=name, options={"exclude": exclude, "embeddings": "int4"})
        _, options = find_recipe("v", chosen)
        assert options.embeddings == "int4"
        if exclude == "auto":
            with pytest.raises(ParamsError, match="auto has not been replaced"):
                _ = options.patterns
        else:
            assert options.patterns == ("layer.0",)


def test_the_old_spelling_of_a_choice_of_tables_is_refused() -> None:
    params = RecipeParams(format="tflite", recipe="fp16", options={"embeddings": True})
    with pytest.raises(
        ParamsError, match=r"options\.embeddings = True: .*'float', 'fp16', 'int8', 'int4' or 'int4_row'"
    ):
        find_recipe("v", params)


def test_an_unknown_variant_is_named_with_the_nearest_name() -> None:
    params = QuantizeParams.model_validate({"recipes": {"onnx-fp16": {"format": "onnx", "recipe": "fp16"}}})
    with pytest.raises(ParamsError, match="Did you mean 'onnx-fp16'"):
        variant_params(params, "onnx-fp61")


def test_options_override_defaults() -> None:
    params = RecipeParams(
        format="tflite", recipe="static_wi8_ai8", options={"operations": ["GELU"], "embeddings": "float"}
    )
    _, options = find_recipe("v", params)
    assert options == TfliteStaticOptions(operations=("GELU",), embeddings="float")

from pathlib import Path

import numpy as np
import pytest

from pocketbert.artifacts import read_artifact
from pocketbert.data.dataset import Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.delegation.operators import read_operators
from pocketbert.errors import ExportError
from pocketbert.export.tf_layers import activation
from pocketbert.export.tflite import export_tflite
from pocketbert.numerics.logits import compare_logits
from pocketbert.params import ExportTfliteParams, GraphVariants, QuantizeParams
from pocketbert.quantize.run import quantize_artifact
from pocketbert.runtimes.engines import open_runtime
from pocketbert.tuning.forms import Form, all_forms, default_form
from tests.export.trained import MAIN_FAMILIES, MAX_LENGTH, SEQUENCE_LENGTH, make_texts, trained_classifier

PARAMS = ExportTfliteParams(sequence_length=SEQUENCE_LENGTH)
OTHERS = (
    Form("one", GraphVariants(linear="conv")),
    Form("one", GraphVariants(heads="3d")),
    Form("split", GraphVariants(linear="conv", heads="3d")),
)


@pytest.fixture(scope="module")
def logits_of(tmp_path_factory: pytest.TempPathFactory):
    def run(family: str, form: Form) -> tuple[np.ndarray, np.ndarray, set[tuple[str, int]]]:
        """Logits in torch and of the form, and (operator, rank of its result) of its graph."""
        folder = tmp_path_factory.mktemp("form") / form.name
        classifier = trained_classifier(family)
        export_tflite(form.apply(PARAMS), classifier, folder)
        batch = TextEncoder(classifier).encode(make_texts(8, seed=9)[0], MAX_LENGTH)
        both = [open_runtime(read_artifact(f)).run(batch) for f in (classifier, folder)]
        kinds = {(op.kind, len(op.outputs[0].shape)) for op in read_operators(folder / "model.tflite")}
        return both[0], both[1], kinds

    return run


@pytest.mark.parametrize("form", OTHERS, ids=lambda form: form.name)
@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_every_form_computes_the_same(logits_of, family: str, form: Form) -> None:
    torch_logits, logits, kinds = logits_of(family, form)
    assert compare_logits(torch_logits, logits).max_rel_diff < 1e-5
    ranks = {rank for kind, rank in kinds if kind == "BATCH_MATMUL"}
    # The pooling is a product of rank 3 in every form.
    assert (4 in ranks) == (form.variants.heads == "4d")
    operators = {kind for kind, _ in kinds}
    assert ("FULLY_CONNECTED" in operators) == (form.variants.linear == "fully_connected")
    if form.variants.linear == "conv":
        assert "CONV_2D" in operators


def test_static_int8_takes_the_linear_layers_of_either_form(tmp_path: Path) -> None:
    """It failed where they are convolutions: no operation of the recipe was in the graph."""
    texts, targets = make_texts(32, seed=5)
    params = QuantizeParams.model_validate(
        {"calibration": {"rows": 32}, "recipes": {"x": {"format": "tflite", "recipe": "static_wi8_ai8"}}}
    )
    logits = []
    classifier = trained_classifier("bert")
    batch = TextEncoder(classifier).encode(texts, MAX_LENGTH)
    for form in (default_form(PARAMS), OTHERS[0]):
        export_tflite(form.apply(PARAMS), classifier, tmp_path / form.name)
        target = tmp_path / f"{form.name}-static"
        quantize_artifact(params, "x", {"tflite": tmp_path / form.name}, Split(texts, targets.numpy()), target)
        logits.append(open_runtime(read_artifact(target)).run(batch))
    assert compare_logits(open_runtime(read_artifact(classifier)).run(batch), logits[1]).max_rel_diff < 0.1
    assert compare_logits(*logits).max_rel_diff < 0.05


def test_gelu_by_tanh_is_near_and_not_equal(logits_of) -> None:
    torch_logits, logits, _ = logits_of("bert", Form("one", GraphVariants(gelu="tanh")))
    assert 1e-5 < compare_logits(torch_logits, logits).max_rel_diff < 1e-2


def test_an_activation_that_is_no_gelu_has_no_other_form() -> None:
    assert activation("relu", "tanh") is activation("relu")
    assert activation("gelu", "tanh") is activation("gelu_new")
    with pytest.raises(ExportError, match="no TensorFlow counterpart"):
        activation("gelu_10", "tanh")


def test_the_forms_are_all_combinations_with_the_default_first() -> None:
    forms = all_forms(PARAMS, tanh=False)
    assert len({form.name for form in forms}) == len(forms) == 8
    assert forms[0] == default_form(PARAMS)
    assert forms[0].apply(PARAMS) == PARAMS
    assert {form.variants.gelu for form in forms} == {"exact"}
    assert len(all_forms(PARAMS, tanh=True)) == 16
    chosen = PARAMS.model_copy(update={"variants": GraphVariants(heads="3d")})
    assert all_forms(chosen, tanh=False)[0].variants.heads == "3d"


def test_a_form_keeps_the_fusions_that_it_does_not_choose() -> None:
    params = PARAMS.model_copy(update={"fuse": ("query_scale",)})
    assert default_form(params).products == "split"
    assert Form("one", GraphVariants()).apply(params).fuse == ("query_scale", "one_product")
    for form in all_forms(params, tanh=True):
        settings = form.settings(params)
        assert ExportTfliteParams.model_validate({**params.model_dump(), **settings}) == form.apply(params)

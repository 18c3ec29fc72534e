import json
import shutil

import pytest
import torch

from pocketbert.artifacts import read_artifact
from pocketbert.errors import ProofError
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.numerics.validate import validate_exports
from pocketbert.params import ValidateParams
from tests.export.trained import MAIN_FAMILIES, exported, make_texts

TEXTS = make_texts(60, seed=99)[0]


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_sound_exports_pass_and_the_figures_are_written(family, tmp_path):
    models = exported(family)
    metrics = validate_exports(
        ValidateParams(rows=40), models.classifier, [models.onnx, models.tflite], TEXTS, tmp_path / "results"
    )
    assert set(metrics) == {"onnx-fp32", "tflite-fp32"}
    document = json.loads((tmp_path / "results/validate.json").read_text())
    kinds = {"real": 40, "longest": 4, "holes": 8, "shortened": 8, "segments": 8, "padding": 1}
    assert document["probes"] == {k: n for k, n in kinds.items() if k != "segments" or family != "distilbert"}
    used = set(load_classifier(models.classifier).state_dict())
    for name, folder in (("onnx-fp32", models.onnx), ("tflite-fp32", models.tflite)):
        figures = metrics[name]
        assert figures["logit_rel_diff"] < 1e-5
        assert figures["agreement"] == 1.0
        # A fused file holds other tensors, computed again from torch's.
        assert figures["tensors_equal"] == figures["tensors_compared"]
        assert figures["tensors_compared"] == len(used) or name == "tflite-fp32"
        written = document["artifacts"][name]
        assert written["md5"] == read_artifact(folder).md5()
        assert written["row_diff_quantiles"]["p50"] <= written["row_diff_quantiles"]["p100"]


def test_the_same_rows_are_drawn_for_the_same_seed(tmp_path):
    models = exported("bert")
    run = [
        validate_exports(ValidateParams(rows=5), models.classifier, [models.onnx], TEXTS, tmp_path / str(i))
        for i in range(2)
    ]
    assert run[0] == run[1]


def test_a_limit_that_is_too_narrow_fails_with_the_figure_and_the_limit(tmp_path):
    models = exported("bert")
    with pytest.raises(ProofError, match=r"tflite-fp32: logit_rel_diff \S+ is over .*logit_rel_diff_max = 1e-12"):
        validate_exports(
            ValidateParams(rows=5, logit_rel_diff_max=1e-12), models.classifier, [models.tflite], TEXTS, tmp_path
        )


def test_a_classifier_that_ignores_its_input_proves_nothing(tmp_path):
    models = exported("bert")
    model = load_classifier(models.classifier)
    with torch.no_grad():
        model.head.linear_1.weight.zero_()
    shutil.copytree(models.classifier, tmp_path / "constant")
    model.save_pretrained(tmp_path / "constant")
    with pytest.raises(ProofError, match=r"onnx-fp32: .*hardly depend on the input"):
        validate_exports(ValidateParams(rows=5), tmp_path / "constant", [models.onnx], TEXTS, tmp_path / "results")


def test_without_texts_there_is_nothing_to_compare_on(tmp_path):
    models = exported("bert")
    with pytest.raises(ProofError, match="no text"):
        validate_exports(ValidateParams(), models.classifier, [models.onnx], [], tmp_path / "results")

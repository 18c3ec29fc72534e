import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from pocketbert.errors import ExportError, ProofError
from pocketbert.export import tflite
from pocketbert.export.tf_classifier import Classifier
from pocketbert.export.transplant import Transform, Transplant, parameters, rows
from pocketbert.numerics.fusion_plan import fuse_weights
from pocketbert.params import FUSIONS
from tests.export.trained import MAIN_FAMILIES, build_classifier


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_every_parameter_is_recorded_once_with_the_hash_of_its_bits(family):
    model = build_classifier(family).eval()
    record = tflite.trace(model, 16, -1e4, fuse=()).transplanted
    named = [line.torch_name for line in record]
    operands = {operand for line in record for operand in line.operands}
    assert len(named) == len(set(named))
    assert set(named) | operands == set(model.state_dict())
    by_name = {line.torch_name: line for line in record}
    table = model.state_dict()["encoder.embeddings.word_embeddings.weight"].numpy()
    line = by_name["encoder.embeddings.word_embeddings.weight"]
    assert (line.transform, line.shape) == ("identity", table.shape)
    assert line.sha256 == hashlib.sha256(table.tobytes()).hexdigest()
    assert by_name["encoder.embeddings.position_embeddings.weight"].transform == "rows[0:16]"


@pytest.mark.parametrize("profile", ["delegate", "embeddings", "stock"])
@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_fused_tensors_follow_from_every_parameter(family, profile):
    """Parameters of which nothing is left in a fused graph (a NoNorm's) still stand behind a tensor that is."""
    model = build_classifier(family).eval()
    traced = tflite.trace(model, 16, -1e4, profile)
    behind = {name for line in traced.transplanted for name in (line.torch_name, *line.operands)}
    assert set(model.state_dict()) <= behind
    assert all(line.equal for line in traced.transplanted)
    fused = {step for line in traced.transplanted for step in line.transform.split("+")} & set(FUSIONS)
    # What the converter would do unasked is done, on record, in every graph of MobileBERT.
    assert fused if profile != "stock" else fused <= {"no_norm"}


def test_a_fused_tensor_that_the_graph_does_not_use_is_named():
    model = build_classifier("bert").eval()
    weights = fuse_weights(parameters(model), model.encoder.config, FUSIONS, length=16)
    weights.put("head.extra", np.ones(3), "layer_norm", ["head.linear_0.bias"])
    transplant = Transplant(model, weights)
    module = Classifier(model, transplant, 16, -1e4, stock=False)
    with pytest.raises(ProofError, match=r"1 tensors are not matched.*head\.extra"):
        transplant.prove(module.variables)


def test_a_parameter_that_the_graph_does_not_use_is_named():
    model = build_classifier("bert").eval()
    model.head.register_parameter("temperature", nn.Parameter(torch.ones(1)))
    with pytest.raises(ProofError, match=r"1 tensors are not matched.*head\.temperature"):
        tflite.trace(model, 16, -1e4)


def test_a_variable_that_does_not_reach_the_graph_is_named():
    model = build_classifier("bert")
    transplant = Transplant(model)
    captured = [transplant.variable(name) for name in model.state_dict()]
    with pytest.raises(ProofError, match=r"1 tensors are not matched.*head\.linear_1\.bias"):
        transplant.prove(captured[:-1])


def test_a_parameter_is_handed_out_once():
    transplant = Transplant(build_classifier("bert"))
    transplant.variable("head.linear_0.weight")
    with pytest.raises(ProofError, match="twice"):
        transplant.variable("head.linear_0.weight")


def test_an_unknown_parameter_is_an_export_error():
    with pytest.raises(ExportError, match=r"no parameter head\.missing"):
        Transplant(build_classifier("bert")).variable("head.missing")


def test_half_precision_weights_are_refused():
    with pytest.raises(ExportError, match="float16"):
        tflite.trace(build_classifier("bert").half(), 16, -1e4)


def test_a_value_that_changed_after_the_transplant_is_named():
    model = build_classifier("bert").eval()
    transplant = Transplant(model)
    captured = [transplant.variable(name) for name in model.state_dict()]
    captured[3].assign(captured[3] + 1e-6)
    with pytest.raises(ProofError, match="1 tensors changed"):
        transplant.prove(captured)


def test_transforms_say_what_they_do():
    model = build_classifier("bert")
    transplant = Transplant(model)
    table = "encoder.embeddings.position_embeddings.weight"
    expected = model.state_dict()[table].numpy()[2:5]
    assert np.array_equal(transplant.variable(table, rows(2, 5)).numpy(), expected)
    scaled = Transform("b * g", lambda b, g: b * g, ("encoder.embeddings.LayerNorm.weight",))
    bias = "encoder.encoder.layer.0.output.dense.bias"
    assert transplant.variable(bias, scaled).shape == model.state_dict()[bias].shape

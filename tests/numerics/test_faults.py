"""Planted faults: each is a conversion that runs, looks right and is wrong. `validate` must refuse all of them."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper
from torch import nn

from pocketbert.errors import ProofError
from pocketbert.export import tflite
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.numerics.validate import validate_exports
from pocketbert.params import ValidateParams
from tests.export.trained import MAIN_FAMILIES, SEQUENCE_LENGTH, exported, make_texts

TEXTS = make_texts(60, seed=99)[0]
PARAMS = ValidateParams(rows=24)


def validate(family: str, export: Path, folder: Path):
    return validate_exports(PARAMS, exported(family).classifier, [export], TEXTS, folder / "results")


def head_left_random(model: PocketBertClassifier) -> None:
    for module in model.head.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()


def slope_of_keras(model: PocketBertClassifier) -> None:
    model.head.activation_0 = nn.LeakyReLU(0.3)


def embedding_row_off_by_one(model: PocketBertClassifier) -> None:
    table = model.encoder.embeddings.word_embeddings.weight
    with torch.no_grad():
        table[20] = table[21].clone()


def positions_off_by_one(model: PocketBertClassifier) -> None:
    table = model.encoder.embeddings.position_embeddings.weight
    with torch.no_grad():
        table.copy_(table.roll(1, dims=0))


def faulty_tflite(family: str, fault: Callable[[PocketBertClassifier], None], folder: Path) -> Path:
    """The family's TFLite artifact with the file of a faulted copy of its classifier."""
    model = copy.deepcopy(load_classifier(exported(family).classifier))
    fault(model)
    shutil.copytree(exported(family).tflite, folder / "tflite")
    (folder / "tflite/model.tflite").write_bytes(tflite.convert(model, SEQUENCE_LENGTH, -1e4))
    return folder / "tflite"


@pytest.mark.parametrize("family", MAIN_FAMILIES)
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (head_left_random, r"tensors of the classifier are not in the file.*head\.linear"),
        # Every tensor is right; only rows with negative pre-activations in the head tell.
        (slope_of_keras, r"logit_rel_diff .* is over validate\.logit_rel_diff_max.* (\d+) of \1 tensors equal"),
        (embedding_row_off_by_one, r"1 tensors of the classifier are not in the file.*word_embeddings\.weight"),
        (positions_off_by_one, r"1 tensors of the classifier are not in the file.*position_embeddings\.weight"),
    ],
)
def test_a_faulty_conversion_is_refused(family, fault, says, tmp_path):
    with pytest.raises(ProofError, match=f"^tflite-fp32: .*{says}"):
        validate(family, faulty_tflite(family, fault, tmp_path), tmp_path)


@pytest.mark.parametrize("family", ["bert", "mobilebert"])
def test_mask_and_token_types_swapped_in_the_signature_is_refused(family, tmp_path):
    shutil.copytree(exported(family).tflite, tmp_path / "tflite")
    path = tmp_path / "tflite/model.tflite"
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    swap = {b"attention_mask": b"token_type_ids", b"token_type_ids": b"attention_mask"}
    for entry in model.signatureDefs[0].inputs:
        entry.name = swap.get(entry.name, entry.name)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    with pytest.raises(ProofError, match=r"^tflite-fp32: logit_rel_diff .* (\d+) of \1 tensors equal"):
        validate(family, tmp_path / "tflite", tmp_path)


@pytest.mark.parametrize("family", ["bert", "mobilebert"])
def test_mask_and_token_types_swapped_in_onnx_is_refused(family, tmp_path):
    def fault(model: onnx.ModelProto) -> None:
        swap = {"attention_mask": "token_type_ids", "token_type_ids": "attention_mask"}
        for node in model.graph.node:
            node.input[:] = [swap.get(name, name) for name in node.input]

    with pytest.raises(ProofError, match=r"^onnx-fp32: logit_rel_diff"):
        validate(family, faulty_onnx(family, fault, tmp_path), tmp_path)


def faulty_onnx(family: str, fault: Callable[[onnx.ModelProto], None], folder: Path) -> Path:
    """The family's ONNX artifact with an edited graph."""
    shutil.copytree(exported(family).onnx, folder / "onnx")
    model = onnx.load(folder / "onnx/model.onnx")
    fault(model)
    onnx.save(model, folder / "onnx/model.onnx")
    return folder / "onnx"


def test_the_slope_of_keras_in_onnx_is_refused(tmp_path):
    def fault(model: onnx.ModelProto) -> None:
        (node,) = (n for n in model.graph.node if n.op_type == "LeakyRelu")
        node.attribute[0].f = 0.3

    with pytest.raises(ProofError, match=r"^onnx-fp32: logit_rel_diff"):
        validate("bert", faulty_onnx("bert", fault, tmp_path), tmp_path)


def test_one_weight_edited_by_hand_is_refused_though_no_logit_shows_it(tmp_path):
    def fault(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name.endswith("word_embeddings.weight"))
        table = numpy_helper.to_array(tensor).copy()
        table[9, 3] = np.nextafter(table[9, 3], np.float32(1))
        tensor.CopyFrom(numpy_helper.from_array(table, tensor.name))

    with pytest.raises(ProofError, match=r"^onnx-fp32: 1 tensors .*word_embeddings\.weight"):
        validate("bert", faulty_onnx("bert", fault, tmp_path), tmp_path)


def test_a_mask_that_masks_nothing_is_refused(tmp_path):
    def fault(model: onnx.ModelProto) -> None:
        tensors = [a.t for node in model.graph.node for a in node.attribute if a.HasField("t")]
        (mask,) = (t for t in tensors if numpy_helper.to_array(t).size == 1 and numpy_helper.to_array(t).item() == -1e4)
        mask.CopyFrom(numpy_helper.from_array(np.array(0, np.float32), mask.name))

    with pytest.raises(ProofError, match=r"worst on a '(real|holes|shortened|segments)' row"):
        validate("bert", faulty_onnx("bert", fault, tmp_path), tmp_path)


def test_an_export_of_another_classifier_is_refused(tmp_path):
    other = tmp_path / "other"
    shutil.copytree(exported("bert").classifier, other)
    model = load_classifier(other)
    embedding_row_off_by_one(model)
    model.save_pretrained(other)
    with pytest.raises(ProofError, match=r"^onnx-fp32: 1 tensors"):
        validate_exports(PARAMS, other, [exported("bert").onnx], TEXTS, tmp_path / "results")

"""Planted faults: each is a conversion that runs, looks right and is wrong. `validate` must refuse all of them."""

import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from pocketbert.errors import DeviceError, ProofError
from pocketbert.export import tflite
from pocketbert.inspection.inspect import inspect_file
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.numerics.validate import validate_exports
from pocketbert.params import ValidateParams
from tests.export.trained import MAIN_FAMILIES, SEQUENCE_LENGTH, exported, make_texts
from tests.inspection.conftest import edit_tflite, rename_op

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


def square_kernel(family: str) -> tuple[str, NDArray[np.float32]]:
    """The first attention output of a classifier: of all kernels, only a square one fits transposed."""
    model = load_classifier(exported(family).classifier)
    return next(
        (name, parameter.detach().numpy())
        for name, parameter in model.named_parameters()
        if name.endswith(("attention.output.dense.weight", "attention.out_lin.weight"))
    )


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_a_transposed_kernel_in_tflite_is_refused(family, tmp_path):
    name, kernel = square_kernel(family)
    shutil.copytree(exported(family).tflite, tmp_path / "tflite")
    path = tmp_path / "tflite/model.tflite"
    stored, fault = (np.ascontiguousarray(matrix).tobytes() for matrix in (kernel, kernel.T))
    content = path.read_bytes()
    assert content.count(stored) + content.count(fault) == 1
    path.write_bytes(content.replace(stored, fault) if stored in content else content.replace(fault, stored))
    with pytest.raises(
        ProofError, match=rf"^tflite-fp32: .*1 tensors of the classifier are not in.*{re.escape(name)} \(transposed\)"
    ):
        validate(family, tmp_path / "tflite", tmp_path)


def test_a_transposed_kernel_in_onnx_is_refused(tmp_path):
    name, kernel = square_kernel("bert")

    def fault(model: onnx.ModelProto) -> None:
        # The exporter stores the kernels of products transposed, under names of its own.
        (tensor,) = (t for t in model.graph.initializer if np.array_equal(numpy_helper.to_array(t), kernel.T))
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(kernel), tensor.name))

    with pytest.raises(ProofError, match=rf"^onnx-fp32: .*1 tensors .*{re.escape(name)} \(transposed\)"):
        validate("bert", faulty_onnx("bert", fault, tmp_path), tmp_path)


def test_a_head_left_random_in_onnx_is_refused(tmp_path):
    def fault(model: onnx.ModelProto) -> None:
        random = np.random.default_rng(0)
        for tensor in model.graph.initializer:
            if tensor.name.startswith("head.linear"):
                values = random.normal(0, 0.1, tuple(tensor.dims)).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    with pytest.raises(ProofError, match=r"^onnx-fp32: .*tensors of the classifier are not in the file.*head\.linear"):
        validate("bert", faulty_onnx("bert", fault, tmp_path), tmp_path)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_one_layer_left_in_train_mode_is_refused(family, tmp_path):
    """Every weight is right, and a dropout that still drops is the only difference."""

    def fault(model: onnx.ModelProto) -> None:
        norm = next(n for n in model.graph.node if n.op_type == "LayerNormalization" and "layer.1" in n.name)
        (kept, whole), make = (norm.output[0], "whole"), onnx.helper.make_node
        norm.output[0] = whole
        constants = {"rate": np.float32(0.1), "gain": np.float32(1 / 0.9)}
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
        # Written out, as other exporters do: ONNX Runtime drops a node Dropout whatever its mode.
        dropout = [
            make("RandomUniformLike", [whole], ["drawn"], seed=7.0, low=0.0, high=1.0),
            make("Greater", ["drawn", "rate"], ["survives"]),
            make("Cast", ["survives"], ["factor"], to=onnx.TensorProto.FLOAT),
            make("Mul", [whole, "factor"], ["thinned"]),
            make("Mul", ["thinned", "gain"], [kept]),
        ]
        place = list(model.graph.node).index(norm) + 1
        for offset, node in enumerate(dropout):
            model.graph.node.insert(place + offset, node)

    faulty = faulty_onnx(family, fault, tmp_path)
    with pytest.raises(ProofError, match=r"^onnx-fp32: logit_rel_diff .* (\d+) of \1 tensors equal"):
        validate(family, faulty, tmp_path)
    assert [use.op for use in inspect_file(faulty).random] == ["RandomUniformLike"]


def test_a_classifier_left_in_train_mode_is_exported_in_eval_mode(tmp_path):
    """What the exporters read is the folder: the mode of a model in memory cannot leak into a file."""
    model = load_classifier(exported("bert").classifier)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a_tflite_file_cut_short_is_one_clear_line(share, tmp_path):
    shutil.copytree(exported("bert").tflite, tmp_path / "tflite")
    path = tmp_path / "tflite/model.tflite"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(tmp_path, r"model\.tflite cannot be loaded: .*whether it is cut short")


def test_an_onnx_file_without_its_external_data_is_one_clear_line(tmp_path):
    path = faulty_onnx("bert", lambda _: None, tmp_path) / "model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=256)
    validate("bert", tmp_path / "onnx", tmp_path)
    (tmp_path / "onnx/weights.bin").unlink()
    refused(tmp_path, r"model\.onnx cannot be loaded: .*External data.*lacks its external data")


def test_a_tflite_file_that_asks_for_a_custom_op_is_one_clear_line(tmp_path):
    shutil.copytree(exported("bert").tflite, tmp_path / "tflite")
    source = exported("bert").tflite / "model.tflite"
    edit_tflite(source, tmp_path / "tflite/model.tflite", lambda m: rename_op(m, "SOFTMAX", custom="FancySoftmax"))
    refused(tmp_path, r"model\.tflite cannot be loaded: .*FancySoftmax.*asks for custom operators")


def test_an_onnx_file_that_asks_for_a_custom_op_is_one_clear_line(tmp_path):
    def fault(model: onnx.ModelProto) -> None:
        next(n for n in model.graph.node if n.op_type == "Softmax").domain = "com.example"
        model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))

    faulty_onnx("bert", fault, tmp_path)
    refused(tmp_path, r"model\.onnx cannot be loaded: .*com\.example:Softmax.*asks for custom operators")


def refused(folder: Path, says: str) -> None:
    """`validate` refuses the only export in `folder` in one line."""
    (export,) = (path for path in folder.iterdir() if path.name in ("onnx", "tflite"))
    with pytest.raises(DeviceError, match=says) as caught:
        validate("bert", export, folder)
    assert "\n" not in str(caught.value)

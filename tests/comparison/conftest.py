"""A tiny trained student in three formats, and two foreign files of one small model made without pocketbert."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketbert.artifacts import Artifact
from tests.devices.conftest import save_tokenizer, toy_texts
from tests.runtimes.conftest import onnx, student, tflite

__all__ = ["onnx", "student", "tflite"]
LENGTH, VOCABULARY, WIDTH, CLASSES = 12, 25, 8, 3


@pytest.fixture(scope="session")
def rows_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    path.write_text("id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(toy_texts())))
    return path


@pytest.fixture(scope="session")
def tokenizer(student: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return folder


def bag_weights() -> dict[str, np.ndarray]:
    """A bag of embeddings whose mask and token types matter, each in its own way."""
    random = np.random.default_rng(3)
    shapes = {"words": (VOCABULARY, WIDTH), "types": (2, WIDTH), "head": (WIDTH, CLASSES)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def bag_onnx(path: Path, names: Sequence[str] = ("input_ids", "attention_mask", "token_type_ids"), **swap: str) -> Path:
    """The bag as an ONNX file with inputs of the given names; `swap` feeds an input of one role to another's place."""
    from onnx import TensorProto, helper, numpy_helper, save

    roles = dict(zip(("ids", "mask", "types"), names, strict=True))
    source = {role: roles[swap.get(role, role)] for role in roles}
    make = helper.make_node
    nodes = [
        make("Gather", ["words", source["ids"]], ["w"]),
        make("Gather", ["types", source["types"]], ["t"]),
        make("Add", ["w", "t"], ["e"]),
        make("Cast", [source["mask"]], ["m"], to=TensorProto.FLOAT),
        make("Unsqueeze", ["m", "axis"], ["m3"]),
        make("Mul", ["e", "m3"], ["masked"]),
        make("ReduceSum", ["masked", "one"], ["bag"], keepdims=0),
        make("MatMul", ["bag", "head"], ["scores"]),
    ]
    weights = bag_weights() | {"axis": np.array([2]), "one": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "bag",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "length"]) for name in names],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def bag_tflite(folder: Path, length: int | None) -> Path:
    """The same bag in TFLite: int64 inputs named arg*, types before ids, no signature."""
    import tensorflow as tf

    from tests.inspection.conftest import edit_tflite

    weights = {name: tf.constant(value) for name, value in bag_weights().items()}

    @tf.function(input_signature=[tf.TensorSpec([1, length], tf.int64, f"arg{i}") for i in range(3)])
    def bag(arg0: Any, arg1: Any, arg2: Any) -> Any:
        rows = tf.gather(weights["words"], arg1) + tf.gather(weights["types"], arg0)
        return tf.matmul(tf.reduce_sum(rows * tf.cast(arg2, tf.float32)[..., None], axis=1), weights["head"])

    converter = tf.lite.TFLiteConverter.from_concrete_functions([bag.get_concrete_function()])
    (folder / "signed.tflite").write_bytes(converter.convert())

    def strip(model: Any) -> None:
        model.signatureDefs = None

    return edit_tflite(folder / "signed.tflite", folder / "foreign.tflite", strip)


@pytest.fixture(scope="session", params=[LENGTH, None], ids=["static", "dynamic"])
def foreign_tflite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bag_tflite(tmp_path_factory.mktemp("foreign"), request.param)

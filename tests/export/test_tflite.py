import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketbert.artifacts import read_artifact
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ExportError, ParamsError
from pocketbert.export import tflite
from pocketbert.export.tf_layers import ACTIVATIONS, activation
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.classifier import PocketBertClassifier, PocketBertConfig
from pocketbert.params import ExportTfliteParams, HeadParams
from tests.export.trained import (
    FAMILIES,
    MAIN_FAMILIES,
    MAX_LENGTH,
    SEQUENCE_LENGTH,
    build_classifier,
    exported,
    make_texts,
    trained_classifier,
)


def run_rows(content: bytes, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Logits of a .tflite, row by row, bound by name."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    runner = interpreter.get_signature_runner("serving_default")
    names = list(runner.get_input_details())
    count = len(batch["input_ids"])
    return np.concatenate([runner(**{n: batch[n][i : i + 1] for n in names})["logits"] for i in range(count)])


def probe_batch(folder, rows: int = 12) -> dict[str, np.ndarray]:
    batch = TextEncoder(folder).encode(make_texts(rows, seed=5)[0], MAX_LENGTH, pad_to=SEQUENCE_LENGTH)
    batch["attention_mask"][0] = 0
    batch["attention_mask"][1, 2:5] = 0
    batch["token_type_ids"][2, 3:8] = 1
    return batch


def relative_difference(model: PocketBertClassifier, content: bytes, batch: dict[str, np.ndarray]) -> float:
    with torch.inference_mode():
        expected = model(**{n: torch.from_numpy(v).long() for n, v in batch.items()}).logits.numpy()
    return float(np.abs(run_rows(content, batch) - expected).max() / expected.std(axis=0).mean())


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in MAIN_FAMILIES])
def test_the_graph_computes_what_torch_computes(family):
    folder = trained_classifier(family, steps=30)
    model = load_classifier(folder)
    assert relative_difference(model, tflite.convert(model, SEQUENCE_LENGTH, -1e4), probe_batch(folder)) < 1e-5


@pytest.mark.parametrize(
    ("pooling", "head"),
    [
        ("cls", HeadParams(depth=1)),
        ("mean", HeadParams(depth=3, activation="gelu", width=20)),
        ("cls", HeadParams(activation="relu")),
        ("mean", HeadParams(activation="tanh")),
    ],
)
def test_poolings_and_heads_compute_what_torch_computes(pooling, head):
    # The head and the pooling are what is tested: larger initial weights stand in for training.
    model = build_classifier("bert", head, pooling).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("head") or name.endswith("word_embeddings.weight"):
                parameter.normal_(std=0.5)
    batch = probe_batch(trained_classifier("bert"))
    assert relative_difference(model, tflite.convert(model, SEQUENCE_LENGTH, -1e4), batch) < 1e-5


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_the_artifact_is_complete(family):
    artifact = read_artifact(exported(family).tflite)
    assert (artifact.name, artifact.card.format) == ("tflite-fp32", "tflite")
    assert (artifact.card.sequence_length, artifact.card.max_length) == (SEQUENCE_LENGTH, MAX_LENGTH)
    record = json.loads((artifact.folder / "transplant.json").read_text())
    assert record
    assert all(line["equal"] for line in record)


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_inputs_are_named_int32_and_static(family):
    runner = Interpreter(model_path=str(exported(family).tflite / "model.tflite")).get_signature_runner(
        "serving_default"
    )
    details = runner.get_input_details()
    types = [] if family == "distilbert" else ["token_type_ids"]
    assert sorted(details) == sorted(["input_ids", "attention_mask", *types])
    assert {(d["dtype"], tuple(d["shape"])) for d in details.values()} == {(np.int32, (1, SEQUENCE_LENGTH))}
    assert list(runner.get_output_details()) == ["logits"]


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_only_what_gpu_delegates_take(family):
    """FINDINGS on delegates: no 64-bit tensor, rank over 4, broadcast, shrinking slice; gather by 1-D indices."""
    model = schema.Model.GetRootAs((exported(family).tflite / "model.tflite").read_bytes(), 0)
    graph = model.Subgraphs(0)
    tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
    assert {t.Type() for t in tensors} <= {schema.TensorType.FLOAT32, schema.TensorType.INT32}
    assert max(t.ShapeLength() for t in tensors) <= 4
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    codes = [model.OperatorCodes(op.OpcodeIndex()).BuiltinCode() for op in operators]
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    taken = {
        "ADD", "BATCH_MATMUL", "CAST", "CONCATENATION", "CONV_2D", "DIV", "FULLY_CONNECTED", "GATHER", "GELU",
        "LEAKY_RELU", "MAXIMUM", "MEAN", "MUL", "RESHAPE", "RSQRT", "SLICE", "SOFTMAX", "SPLIT", "SQUARED_DIFFERENCE",
        "SUB", "SUM", "TRANSPOSE",
    }  # fmt: skip
    assert {names[code] for code in codes} <= taken
    for op, code in zip(operators, codes, strict=True):
        if names[code] == "GATHER":
            assert tensors[op.Inputs(1)].ShapeLength() == 1


@given(st.floats(-8, 8, width=32))
@settings(max_examples=50, deadline=None)
def test_activations_are_those_of_transformers(value):
    from transformers.activations import ACT2FN

    for name in ACTIVATIONS:
        expected = ACT2FN[name](torch.tensor([value], dtype=torch.float32)).item()
        assert float(activation(name)(np.array([value], np.float32))[0]) == pytest.approx(expected, abs=2e-6)


def test_an_unknown_activation_is_an_export_error():
    with pytest.raises(ExportError, match="mish"):
        activation("mish")


def test_a_length_over_the_models_limit_is_a_params_error(tmp_path):
    with pytest.raises(ParamsError, match=r"sequence_length = 41 .* limit of 40"):
        tflite.export_tflite(ExportTfliteParams(sequence_length=41), trained_classifier("bert"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # RoBERTa's position table begins with rows for padding.
    with pytest.raises(ParamsError, match="limit of 39"):
        tflite.trace(build_classifier("roberta"), 40, -1e4)


@pytest.mark.parametrize(
    "encoder",
    [
        {"model_type": "electra", "hidden_size": 32, "embedding_size": 32, "num_hidden_layers": 1,
         "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50},
        {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
         "intermediate_size": 32, "vocab_size": 50, "position_embedding_type": "relative_key"},
    ],
)  # fmt: skip
def test_an_encoder_without_a_graph_is_an_export_error(encoder):
    with pytest.raises(ExportError, match="no TensorFlow graph"):
        tflite.trace(PocketBertClassifier(PocketBertConfig(encoder=encoder, num_labels=3)), 16, -1e4)


def test_an_operation_that_tflite_has_not_is_an_export_error():
    import tensorflow as tf

    module = tf.Module()
    function = tf.function(lambda x: {"logits": tf.linalg.inv(x)}).get_concrete_function(tf.TensorSpec([2, 2]))
    with pytest.raises(ExportError, match="TensorFlow cannot convert the graph"):
        tflite.to_flatbuffer(SimpleNamespace(module=module, function=function))

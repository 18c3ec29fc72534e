"""The rules of older Android delegates: predictions alone, on graphs that such delegates are known to refuse."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pocketbert.cli import app
from pocketbert.delegation.analyze import find_profile, predict_file
from pocketbert.delegation.predict import Prediction
from tests.delegation.graphs import LENGTH, WIDTH, to_tflite
from tests.delegation.profiled import profiled
from tests.export.trained import MAIN_FAMILIES, exported

ANDROID = find_profile("tflite-android-2.x")


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_the_embeddings_profile_is_whole(family: str) -> None:
    found = predict_file(profiled(family, "embeddings"), ANDROID)
    assert found.whole, [(f.operator, f.reason) for f in (*found.refused, *found.hazards)]


def test_our_default_graph_is_not_and_each_finding_has_layer_source_and_cure() -> None:
    found = predict_file(exported("bert").tflite / "model.tflite", ANDROID)
    assert not found.whole and found.fails and found.delegated == 0
    by_operator = {finding.operator: finding for finding in (*found.refused, *found.hazards)}
    assert by_operator["GATHER"].layer == "embeddings"
    assert "profile: embeddings" in by_operator["GATHER"].hint
    assert (
        by_operator["FULLY_CONNECTED"].effect == "fatal" and "tensorflow#35445" in by_operator["FULLY_CONNECTED"].source
    )
    assert by_operator["FULLY_CONNECTED"].layer.startswith("layer ")
    assert by_operator["BATCH_MATMUL"].effect == "wrong"
    assert all(f.source and f.hint for f in by_operator.values())


def test_it_never_claims_to_have_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", "/dev/null")
    command = ["delegation", str(exported("bert").tflite), "--profile", "tflite-android-2.x"]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["measured"] is None and document["agreed"] is None
    assert "not asked" in CliRunner().invoke(app, command).stdout


def graph_of(tmp_path: Path, body: Callable[[Any, Any, Any], Any]) -> Prediction:
    """A graph of x, float32 [1, 1, S, H], with a weight [H, H]."""
    import tensorflow as tf

    weight = tf.constant(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([1, 1, LENGTH, WIDTH], tf.float32, "x")])
    def graph(x: Any) -> dict[str, Any]:
        return {"logits": body(tf, x, weight)}

    path = tmp_path / "model.tflite"
    path.write_bytes(to_tflite(tf, graph))
    return predict_file(path, ANDROID)


def convolution(tf: Any, x: Any, weight: Any) -> Any:
    return tf.nn.conv2d(x, tf.reshape(weight, [1, 1, WIDTH, WIDTH]), 1, "SAME")


# What each graph does, and the operator and the words by which it is named; None: nothing is.
CASES: dict[str, tuple[Callable[[Any, Any, Any], Any], tuple[str, str] | None]] = {
    "a 1x1 convolution": (convolution, None),
    "a plain product": (
        lambda tf, x, w: tf.matmul(tf.tanh(x), tf.reshape(tf.exp(x), [1, 1, WIDTH, LENGTH])),
        None,
    ),
    "a transpose that the converter folds into the product": (
        lambda tf, x, w: tf.matmul(tf.tanh(x), tf.transpose(tf.exp(x), [0, 1, 3, 2])),
        ("BATCH_MATMUL", "transposes an operand"),
    ),
    "rows through a fully connected layer": (lambda tf, x, w: tf.matmul(x, w), ("FULLY_CONNECTED", "several rows")),
    "rows as a batch": (
        lambda tf, x, w: tf.tanh(tf.reshape(x, [LENGTH, WIDTH])) * 2.0,
        ("RESHAPE", "batch other than 1"),
    ),
    "a comparison": (
        lambda tf, x, w: tf.where(x > 0.0, x, tf.exp(x)),
        ("GREATER", "anything but one CAST"),
    ),
    "five dimensions": (
        lambda tf, x, w: tf.reduce_sum(tf.exp(tf.reshape(x, [1, 2, 2, LENGTH // 4, WIDTH])), 1),
        ("SUM", "more than four dimensions"),
    ),
    "operands that cross": (
        lambda tf, x, w: tf.reduce_mean(x, 2, keepdims=True) * tf.reduce_mean(x, 3, keepdims=True),
        ("MUL", "different axes"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_single_graphs(case: str, tmp_path: Path) -> None:
    body, wanted = CASES[case]
    found = graph_of(tmp_path, body)
    named = {(f.operator, f.reason) for f in (*found.refused, *found.hazards)}
    if wanted is None:
        assert found.whole, named
    else:
        operator, words = wanted
        assert any(kind == operator and words in reason for kind, reason in named), named
        assert not found.whole

"""Small graphs with what GPU delegates refuse or do wrong."""

from pathlib import Path
from typing import Any

import numpy as np

LENGTH, WIDTH = 16, 32


def table_and_kernel(tf: Any) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    table = tf.constant(random.normal(size=(50, WIDTH)).astype(np.float32))
    return table, tf.constant((random.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32))


def to_tflite(tf: Any, graph: Any) -> bytes:
    return bytes(
        tf.lite.TFLiteConverter.from_concrete_functions([graph.get_concrete_function()], tf.Module()).convert()
    )


def convert(folder: Path, mask_value: float = -1e4) -> Path:
    """What transformers' own classes do: 2-D lookups, an int64 mask, `x[:, 0]`; attention under an additive mask."""
    import tensorflow as tf

    table, kernel = table_and_kernel(tf)

    @tf.function(
        input_signature=[
            tf.TensorSpec([1, LENGTH], tf.int32, "input_ids"),
            tf.TensorSpec([1, LENGTH], tf.int32, "attention_mask"),
        ]
    )
    def graph(input_ids: Any, attention_mask: Any) -> dict[str, Any]:
        x = tf.gather(table, input_ids) @ kernel
        mask = (1.0 - tf.cast(tf.cast(attention_mask, tf.int64), tf.float32)) * mask_value
        scores = tf.matmul(x / WIDTH**0.5, x @ kernel, transpose_b=True) + mask[:, tf.newaxis, :]
        return {"logits": (tf.nn.softmax(scores) @ x)[:, 0]}

    path = folder / "model.tflite"
    path.write_bytes(to_tflite(tf, graph))
    return path


def rows_beside_a_constant() -> bytes:
    """A sum of looked up rows and positions, of which the converter makes [S, H] + [S, H]."""
    import tensorflow as tf

    table, kernel = table_and_kernel(tf)
    positions = tf.constant(np.random.default_rng(1).normal(size=(1, LENGTH, WIDTH)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([1, LENGTH], tf.int32, "input_ids")])
    def graph(input_ids: Any) -> dict[str, Any]:
        x = tf.reshape(tf.gather(table, tf.reshape(input_ids, [LENGTH])), [1, LENGTH, WIDTH]) + positions
        return {"logits": tf.reduce_mean(tf.tanh(x @ kernel), 1)}

    return to_tflite(tf, graph)

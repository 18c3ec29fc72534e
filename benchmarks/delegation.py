"""What LiteRT's GPU delegate does with single operators: taken or refused, and right or wrong.

    python benchmarks/delegation.py

One small model an operator, behind a lookup and a fully connected layer, run on this machine's Vulkan driver and
compared with the CPU. The rules in pocketbert/delegation/rules_litert.py are read off its table.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROWS, LENGTH, WIDTH, VOCABULARY = 2, 16, 32, 50


def branches(tf: Any, kernel: Any) -> dict[str, Callable[[Any, Any], Any]]:
    """Graphs of x, float32 [1, S, H], and the mask, float32 [1, S, 1]."""
    positions = tf.constant(np.random.default_rng(1).normal(size=(LENGTH, WIDTH)).astype(np.float32))

    def halves(x: Any, _: Any) -> Any:
        first, second = tf.split(x, 2, -1)
        return tf.concat([second, first], -1)

    def mean(x: Any) -> Any:
        return tf.reduce_mean(x, 1, keepdims=True)

    def image(x: Any) -> Any:
        return tf.reshape(x, [1, 4, 4, WIDTH])

    def rows(x: Any) -> Any:
        return tf.reshape(x, [1, -1, WIDTH])

    random = np.random.default_rng(2)
    deep = tf.constant(random.normal(size=(3, 3, WIDTH, 1)).astype(np.float32))
    wide = tf.constant(random.normal(size=(3, 3, WIDTH, WIDTH)).astype(np.float32) / 17)
    return {
        "average pool": lambda x, _: rows(tf.nn.avg_pool2d(image(x), 2, 2, "SAME")),
        "broadcast": lambda x, m: x + tf.broadcast_to(m, [1, LENGTH, WIDTH]),
        "convolution 3x3": lambda x, _: rows(tf.nn.conv2d(image(x), wide, 2, "SAME")),
        "depthwise convolution": lambda x, _: rows(tf.nn.depthwise_conv2d(image(x), deep, [1, 1, 1, 1], "SAME")),
        "equal": lambda x, m: x * tf.cast(tf.equal(m, 1.0), tf.float32),
        "less": lambda x, m: x * tf.cast(tf.less(x, m), tf.float32),
        "max pool": lambda x, _: rows(tf.nn.max_pool2d(image(x), 2, 2, "SAME")),
        "normalization": lambda x, _: tf.nn.l2_normalize(x, -1),
        "one hot": lambda x, _: x[:, :16, :16] + tf.one_hot(tf.argmax(x, -1, tf.int32), 16),
        "pack": lambda x, _: tf.reshape(tf.stack([x, x * 2.0], 1), [1, 2 * LENGTH, WIDTH]),
        "reduce min": lambda x, _: x - tf.reduce_min(x, -1, keepdims=True),
        "resize": lambda x, _: rows(tf.image.resize(image(x), [8, 8])),
        "scalar compared": lambda x, _: x * tf.cast(tf.reduce_sum(x) > 0.0, tf.float32),
        "scalar squared": lambda x, _: x * tf.reshape(tf.square(tf.reduce_sum(x)), [1, 1, 1]),
        "sine": lambda x, _: tf.sin(x) + tf.cos(x),
        "symmetric padding": lambda x, _: tf.pad(x, [[0, 0], [1, 1], [0, 0]], "SYMMETRIC"),
        "top k": lambda x, _: tf.math.top_k(x, 4).values,
        "transposed convolution": lambda x, _: rows(tf.nn.conv2d_transpose(image(x), wide, [1, 8, 8, WIDTH], 2)),
        "abs": lambda x, m: tf.abs(x) * m,
        "add of three": lambda x, m: tf.add_n([x, x * 2.0, x * 3.0]) * m,
        "argmax": lambda x, _: x * tf.cast(tf.reshape(tf.argmax(x, -1, tf.int32), [1, LENGTH, 1]), tf.float32),
        "constant rows on [1, S, H]": lambda x, _: x + positions[None],
        "concat": lambda x, _: tf.concat([x[:, :8], x[:, 8:]], 1),
        "convolution 1x1": lambda x, _: tf.reshape(
            tf.nn.conv2d(x[:, None], tf.reshape(kernel, [1, 1, WIDTH, WIDTH]), 1, "SAME"), x.shape
        ),
        "cumulative sum": lambda x, _: tf.cumsum(x, 1),
        "divide": lambda x, _: x / (tf.abs(x) + 1.0),
        "elu": lambda x, _: tf.nn.elu(x),
        "exp": lambda x, _: tf.exp(x),
        "five dimensions": lambda x, _: tf.reshape(
            tf.transpose(tf.reshape(x, [1, 4, 4, 4, 8]), [0, 2, 1, 3, 4]) * 2.0, x.shape
        ),
        "floor": lambda x, _: tf.floor(x),
        "gelu": lambda x, _: tf.nn.gelu(x),
        "gelu by tanh": lambda x, _: tf.nn.gelu(x, approximate=True),
        "hard swish": lambda x, _: x * tf.nn.relu6(x + 3.0) / 6.0,
        "int64": lambda x, m: x * tf.cast(tf.cast(m, tf.int64), tf.float32),
        "leaky relu": lambda x, _: tf.nn.leaky_relu(x, 0.1),
        "log": lambda x, _: tf.math.log(tf.abs(x) + 1.0),
        "log softmax": lambda x, _: tf.nn.log_softmax(x),
        "maximum": lambda x, _: tf.maximum(x, -0.5),
        "minimum": lambda x, _: tf.minimum(x, 0.5),
        "negate": lambda x, m: -x * m,
        "pad": lambda x, _: tf.pad(x, [[0, 0], [1, 0], [0, 0]])[:, :LENGTH],
        "power": lambda x, _: tf.pow(tf.abs(x) + 1.0, 1.5),
        "product of batches": lambda x, _: tf.matmul(tf.matmul(x * 2.0, x, transpose_b=True), x * 3.0),
        "product of a tensor with itself": lambda x, _: tf.matmul(x, x, transpose_b=True),
        "reduce max": lambda x, _: x - tf.reduce_max(x, -1, keepdims=True),
        "relu": lambda x, _: tf.nn.relu(x),
        "reverse": lambda x, _: tf.reverse(x, [1]),
        "rsqrt": lambda x, _: tf.math.rsqrt(tf.square(x) + 1.0),
        "select": lambda x, m: tf.where(m > 0.5, x, x * 2.0),
        "sigmoid": lambda x, _: tf.sigmoid(x),
        "slice that drops an axis": lambda x, _: x[:, 0],
        "slice that keeps it": lambda x, _: tf.slice(x, [0, 0, 0], [1, 1, WIDTH]),
        "softmax": lambda x, _: tf.nn.softmax(x),
        "split and concat": halves,
        "square root": lambda x, _: tf.sqrt(tf.abs(x) + 1.0),
        "squared difference": lambda x, _: tf.math.squared_difference(x, mean(x)),
        "sum to a scalar": lambda x, _: x + tf.reduce_sum(x),
        "sum": lambda x, _: x + tf.reduce_sum(x, 1, keepdims=True),
        "tanh": lambda x, _: tf.tanh(x),
        "tile": lambda x, _: tf.tile(mean(x), [1, LENGTH, 1]),
    }


def convert(tf: Any, table: Any, kernel: Any | None, branch: Callable[[Any, Any], Any], flat: bool = True) -> bytes:
    """The .tflite model of one branch; without a kernel, x is what was looked up."""
    inputs = [tf.TensorSpec([1, LENGTH], tf.int32, name) for name in ("input_ids", "attention_mask")]

    @tf.function(input_signature=inputs)
    def graph(input_ids: Any, attention_mask: Any) -> dict[str, Any]:
        ids = tf.reshape(input_ids, [LENGTH]) if flat else input_ids
        x = tf.reshape(tf.gather(table, ids), [1, LENGTH, WIDTH])
        mask = tf.reshape(tf.cast(attention_mask, tf.float32), [1, LENGTH, 1])
        return {"logits": branch(x if kernel is None else x @ kernel, mask)}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph.get_concrete_function()], tf.Module())
    return bytes(converter.convert())


def main() -> None:
    """Print a row an operator."""
    # A conversion logs much that is not for this table.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    from pocketbert.delegation.measure import measure
    from pocketbert.delegation.operators import read_operators
    from pocketbert.delegation.rows import made_up_rows
    from pocketbert.errors import DeviceError

    random = np.random.default_rng(0)
    table = tf.constant(random.normal(size=(VOCABULARY, WIDTH)).astype(np.float32))
    kernel = tf.constant(random.normal(size=(WIDTH, WIDTH)).astype(np.float32) / 6)
    parts = branches(tf, kernel)
    graphs: dict[str, Any] = {name: (kernel, branch, True) for name, branch in parts.items()}
    # The converter moves the reshape to [1, S, H] behind the sum.
    graphs["constant rows on [S, H]"] = (None, parts["constant rows on [1, S, H]"], True)
    graphs["ids [1, S]"] = (kernel, parts["relu"], False)
    rows, adapter = [], "no adapter"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "model.tflite")
        for name, graph in graphs.items():
            path.write_bytes(convert(tf, table, *graph))
            kinds = sorted({op.kind for op in read_operators(path)} - {"GATHER", "RESHAPE", "FULLY_CONNECTED"})
            try:
                found = measure(path, made_up_rows(path), "fp32")
            except DeviceError as error:
                rows.append(f"| {name} | {', '.join(kinds)} | {error.cause[-90:]} | none |")
                continue
            if found.placement is None:
                raise AssertionError("a run that does not raise has a placement")
            verdict = "right" if found.right else "WRONG"
            refused = "; ".join(found.placement.refused) or "taken"
            rows.append(f"| {name} | {', '.join(kinds) or '-'} | {refused} | {verdict} {found.rel_diff:.0e} |")
            adapter = found.placement.adapter or adapter
    sys.stdout.write(f"ai-edge-litert {version('ai-edge-litert')}, {adapter}\n\n")
    sys.stdout.write("| graph | operators | GPU | result |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()

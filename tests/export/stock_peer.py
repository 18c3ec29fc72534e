"""What transformers itself does with a classifier of ours: a program of its own, since pocketbert switches TF off.

    python stock_peer.py CLASSIFIER LENGTH TARGET.tflite

The classifier is written down as a transformers TensorFlow class (a BERT main layer, mean pooling, a Sequential head),
torch's weights are loaded by what `from_pretrained(from_pt=True)` calls, and TensorFlow converts it.
"""

import os
import sys
from pathlib import Path

os.environ.update(USE_TF="1", TF_USE_LEGACY_KERAS="1", TF_CPP_MIN_LOG_LEVEL="3")

import json

import tensorflow as tf
import tf_keras
from safetensors.torch import load_file
from transformers import BertConfig
from transformers.modeling_tf_pytorch_utils import load_pytorch_weights_in_tf2_model
from transformers.models.bert.modeling_tf_bert import TFBertMainLayer, TFBertPreTrainedModel


class StockClassifier(TFBertPreTrainedModel):
    """Encoder, mean pooling, head, under the torch model's own names."""

    base_model_prefix = "encoder"

    def __init__(self, config: BertConfig, width: int) -> None:
        super().__init__(config)
        self.encoder = TFBertMainLayer(config, add_pooling_layer=False, name="encoder")
        dense = tf_keras.layers.Dense
        head = [
            dense(width, name="linear_0"),
            tf_keras.layers.LeakyReLU(0.01),
            dense(config.num_labels, name="linear_1"),
        ]
        self.head = tf_keras.Sequential(head, name="head")

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        hidden = self.encoder(**inputs, training=training).last_hidden_state
        mask = tf.cast(inputs["attention_mask"], tf.float32)
        weights = mask / tf.maximum(tf.reduce_sum(mask, axis=1, keepdims=True), 1.0)
        return self.head(tf.reduce_sum(hidden * weights[..., None], axis=1))


def main(classifier: Path, length: int, target: Path) -> None:
    config = json.loads((classifier / "config.json").read_text(encoding="utf-8"))
    labels = json.loads((classifier / "labels.json").read_text(encoding="utf-8"))["labels"]
    bert = BertConfig(**config["encoder"], num_labels=len(labels))
    tf.random.set_seed(5)
    model = StockClassifier(bert, config["head"]["width"] or bert.hidden_size)
    names = ("input_ids", "attention_mask", "token_type_ids")
    state = load_file(classifier / "model.safetensors")
    example = {name: tf.ones([1, length], tf.int32) for name in names}
    load_pytorch_weights_in_tf2_model(model, state, tf_inputs=example, allow_missing_keys=True)

    @tf.function(autograph=False)
    def serve(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": model(inputs)}

    specs = {name: tf.TensorSpec([1, length], tf.int32, name=name) for name in names}
    converter = tf.lite.TFLiteConverter.from_concrete_functions([serve.get_concrete_function(**specs)], model)
    target.write_bytes(converter.convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))

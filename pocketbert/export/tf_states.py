"""Our TensorFlow graph against torch, layer by layer, while it is alive: before it becomes a .tflite file."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from pocketbert.data.tokenize import Batch, TextEncoder
from pocketbert.export.tf_classifier import Classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.numerics.layers import FLOAT32_LIMIT, States, name_layers
from pocketbert.numerics.layers_proof import LayerProof, prove_source
from pocketbert.numerics.probes import make_probes


class TfStates:
    """The layers' outputs of our graph, run eagerly."""

    def __init__(self, module: Classifier, inputs: Sequence[str]) -> None:
        self._module, self._inputs = module, inputs
        self.places: Mapping[str, str] = {}

    def states(self, row: Batch) -> States:
        """The layers' outputs for a batch of one row of the graph's length."""
        hidden, head = self._module.states(**{name: tf.constant(row[name]) for name in self._inputs})
        named = name_layers(hidden, head)
        return {name: np.asarray(state).reshape(-1, state.shape[-1]) for name, state in named.items()}


def prove_graph(
    module: Classifier,
    model: PocketBertClassifier,
    encoder: TextEncoder,
    texts: Sequence[str],
    lengths: tuple[int, int],
) -> LayerProof:
    """Compare every layer on a row of each kind of probe made of `texts`; `lengths` are the rows' and the graph's."""
    probes = make_probes(encoder, texts, 2, lengths[0], seed=0, token_types=model.uses_token_types)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if model.uses_token_types else [])]
    first_of_kind = [probes.kinds.index(kind) for kind in dict.fromkeys(probes.kinds)]
    return prove_source(TfStates(module, names), model, probes, first_of_kind, lengths[1], FLOAT32_LIMIT)

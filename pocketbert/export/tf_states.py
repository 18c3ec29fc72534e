"""Our TensorFlow graph against torch, layer by layer, while it is alive: before it becomes a .tflite file."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from pocketbert.data.tokenize import Batch, TextEncoder
from pocketbert.export.tf_classifier import TracedClassifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.numerics.fusion import HOST_POSITIONS, HOST_WORDS, Basis
from pocketbert.numerics.layers import FLOAT32_LIMIT, States, name_layers
from pocketbert.numerics.layers_proof import LayerProof, prove_source
from pocketbert.numerics.probes import make_probes
from pocketbert.runtimes.host_lookup import HostLookup


class TfStates:
    """The layers' outputs of our graph, run eagerly."""

    def __init__(self, traced: TracedClassifier) -> None:
        self._module, self._bases = traced.module, traced.weights.bases
        weights = traced.weights
        self._host = None
        if HOST_WORDS in weights:
            self._host = HostLookup(weights.value(HOST_WORDS), weights.value(HOST_POSITIONS))
        self.places: Mapping[str, str] = {}

    def states(self, row: Batch) -> States:
        """The layers' outputs for a batch of one row of the graph's length, in the model's own basis."""
        specs = self._module.input_specs
        given = self._host.extend(row) if self._host else row
        hidden, head = self._module.states(**{name: tf.constant(given[name], specs[name].dtype) for name in specs})
        named = name_layers(hidden, head)
        return {
            name: self._bases.get(name, Basis()).restore(np.asarray(state).reshape(-1, state.shape[-1]))
            for name, state in named.items()
        }


def prove_graph(
    traced: TracedClassifier,
    model: PocketBertClassifier,
    encoder: TextEncoder,
    texts: Sequence[str],
    lengths: tuple[int, int],
) -> LayerProof:
    """Compare every layer on a row of each kind of probe made of `texts`; `lengths` are the rows' and the graph's."""
    probes = make_probes(encoder, texts, 2, lengths[0], seed=0, token_types=model.uses_token_types)
    first_of_kind = [probes.kinds.index(kind) for kind in dict.fromkeys(probes.kinds)]
    return prove_source(TfStates(traced), model, probes, first_of_kind, lengths[1], FLOAT32_LIMIT)

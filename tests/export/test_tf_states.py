import pytest

from pocketbert.data.tokenize import TextEncoder
from pocketbert.export import tflite
from pocketbert.modeling.checkpoints import load_classifier
from tests.export.trained import MAIN_FAMILIES, MAX_LENGTH, SEQUENCE_LENGTH, make_texts, trained_classifier

TEXTS = make_texts(20, seed=99)[0]


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_the_live_graph_is_compared_layer_by_layer(family: str) -> None:
    folder = trained_classifier(family)
    model = load_classifier(folder)
    traced = tflite.trace(model, SEQUENCE_LENGTH, -1e4)
    from pocketbert.export.tf_states import prove_graph

    lengths = (MAX_LENGTH, SEQUENCE_LENGTH)
    proof = prove_graph(traced, model, TextEncoder(folder), TEXTS, lengths)
    assert [layer.layer for layer in proof.layers][-3:] == ["pooling", "head.linear_0", "logits"]
    assert proof.first_divergence is None
    assert {"longest", "holes", "padding"} <= set(proof.rows)

    (variable,) = (v for v in traced.module.variables if v.name == "head.linear_0.bias:0")
    variable.assign_add([0.1] * variable.shape[0])
    first = prove_graph(traced, model, TextEncoder(folder), TEXTS, lengths).first_divergence
    assert first is not None
    assert first.layer == "head.linear_0"

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pocketbert.numerics.tensors import compare_tensors, used_parameters

CONFIG = SimpleNamespace(model_type="bert", hidden_size=8, num_attention_heads=2, pad_token_id=0)
values = arrays(
    np.float32, array_shapes(min_dims=1, max_dims=2, min_side=2, max_side=6), elements=st.floats(-2, 2, width=32)
)


@given(values, st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_parameter_is_found_in_its_own_and_in_the_transposed_layout(value, transposed):
    result = compare_tensors({"w": value}, {"c": value.T.copy() if transposed else value[None]}, CONFIG, None)
    assert (result.equal, result.missing, result.unknown) == (1, (), ())


@given(values, st.data())
@settings(max_examples=60, deadline=None)
def test_one_changed_element_is_missing_on_one_side_and_unknown_on_the_other(value, data):
    changed = value.copy()
    where = data.draw(st.integers(0, value.size - 1))
    changed.flat[where] = np.nextafter(changed.flat[where], np.float32(9))
    result = compare_tensors({"w": value}, {"c": changed}, CONFIG, None)
    # A transposed matrix may by chance be the changed one only if it is so bit by bit.
    if value.ndim == 2 and value.T.tobytes() == changed.tobytes() and value.T.shape == changed.shape:
        return
    assert result.missing == ("w",)
    assert result.unknown == (f"c {list(value.shape)}",)


def test_single_numbers_of_a_file_are_no_unknown_tensors():
    value = np.arange(4, dtype=np.float32)
    constants = {"w": value, "epsilon": np.float32(1e-12).reshape(()), "mask": np.full((1, 1), -1e4, np.float32)}
    assert compare_tensors({"w": value}, constants, CONFIG, None).unknown == ()


def test_query_weights_may_be_scaled_and_others_not():
    weight = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    scaled = {"c": weight * np.float32(0.5)}
    assert compare_tensors({"layer.0.attention.self.query.weight": weight}, scaled, CONFIG, None).equal == 1
    assert compare_tensors({"layer.0.attention.self.key.weight": weight}, scaled, CONFIG, None).equal == 0


def test_only_the_right_rows_of_the_position_table_are_accepted():
    table = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    parameters = {"e.position_embeddings.weight": table}
    assert compare_tensors(parameters, {"c": table[:6]}, CONFIG, 6).equal == 1
    assert compare_tensors(parameters, {"c": table[1:7]}, CONFIG, 6).equal == 0
    assert compare_tensors(parameters, {"c": table[:6]}, CONFIG, None).equal == 0


def test_unused_parameters_need_not_be_in_the_file():
    names = {"encoder.embeddings.position_ids", "encoder.pooler.dense.weight", "head.linear_0.weight"}
    assert used_parameters(names, CONFIG) == {"head.linear_0.weight"}


def test_a_square_kernel_lies_as_its_oblong_neighbours_do() -> None:
    random = np.random.default_rng(1)
    square, oblong = (random.normal(size=shape).astype(np.float32) for shape in ((4, 4), (6, 4)))
    parameters = {"encoder.a.weight": square, "encoder.b.weight": oblong, "head.c.weight": oblong[:, :3].copy()}
    turned = {name: value.T.copy() for name, value in parameters.items()}
    assert compare_tensors(parameters, parameters, CONFIG, None).missing == ()
    assert compare_tensors(parameters, turned, CONFIG, None).missing == ()
    one = compare_tensors(parameters, parameters | {"encoder.a.weight": square.T.copy()}, CONFIG, None)
    assert (one.missing, one.equal) == (("encoder.a.weight (transposed)",), 2)
    # The head may lie otherwise than the encoder, and a part without an oblong kernel says nothing.
    other = compare_tensors(parameters, parameters | {"head.c.weight": turned["head.c.weight"]}, CONFIG, None)
    assert other.missing == ()
    assert compare_tensors({"encoder.a.weight": square}, {"c": square.T.copy()}, CONFIG, None).missing == ()

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketbert.data.tokenize import TextEncoder
from pocketbert.numerics.probes import make_probes
from tests.export.trained import WORDS, write_tokenizer

texts_strategy = st.lists(
    st.lists(st.integers(0, WORDS - 1), max_size=40).map(lambda words: " ".join(f"w{w}" for w in words)),
    min_size=1, max_size=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> TextEncoder:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return TextEncoder(folder)


@given(texts_strategy, st.integers(1, 30), st.integers(4, 32), st.integers(0, 9), st.booleans())
@settings(max_examples=40, deadline=None)
def test_probes_are_well_formed(encoder, texts, rows, length, seed, token_types):
    probes = make_probes(encoder, texts, rows, length, seed=seed, token_types=token_types)
    ids, mask, types = (probes.inputs[n] for n in ("input_ids", "attention_mask", "token_type_ids"))
    assert ids.shape == mask.shape == types.shape == (len(probes), length)
    assert {a.dtype for a in probes.inputs.values()} == {np.dtype(np.int32)}
    assert set(np.unique(mask)) <= {0, 1}
    assert set(np.unique(types)) <= {0, 1}
    assert (mask[ids == probes.pad_id] == 0).all()
    assert probes.kinds.count("real") == min(rows, len(texts))
    assert probes.kinds.count("padding") == 1
    assert (mask.sum(axis=1) == 0).tolist() == [kind == "padding" for kind in probes.kinds]
    assert ("segments" in probes.kinds) == token_types
    assert types.any() == token_types
    for row, width in zip(ids, probes.lengths(), strict=True):
        assert (row[width:] == probes.pad_id).all()
        assert width == 1 or row[width - 1] != probes.pad_id


def test_holes_and_shortened_rows_have_tokens_that_are_masked(encoder):
    texts = [" ".join(["w1"] * 20)] * 10
    probes = make_probes(encoder, texts, 10, 24, seed=1, token_types=True)
    ids, mask = probes.inputs["input_ids"], probes.inputs["attention_mask"]
    for kind in ("holes", "shortened"):
        chosen = np.array(probes.kinds) == kind
        assert ((ids[chosen] != probes.pad_id) & (mask[chosen] == 0)).any()
    holes = mask[np.array(probes.kinds) == "holes"]
    assert (np.diff(holes, axis=1) == 1).any()
    assert (np.diff(mask[np.array(probes.kinds) == "shortened"], axis=1) <= 0).all()


def test_padding_more_keeps_the_rows(encoder):
    probes = make_probes(encoder, ["w1 w2"], 1, 8, seed=1, token_types=False)
    padded = probes.padded(12)
    for name, rows in probes.inputs.items():
        assert np.array_equal(padded[name][:, :8], rows)
    assert (padded["input_ids"][:, 8:] == probes.pad_id).all()
    assert (padded["attention_mask"][:, 8:] == 0).all()

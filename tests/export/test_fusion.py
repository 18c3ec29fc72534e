"""The exact fusions: the same function, fewer operations, and a proof that fails where it is not the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ProofError
from pocketbert.export import fusion_proof, tflite
from pocketbert.export.fusion_proof import FLOAT64_LIMIT, proof_rows, prove_fusions
from pocketbert.export.transplant import parameters
from pocketbert.numerics import fusion_bert, fusion_mobilebert, fusion_plan
from pocketbert.numerics.fusion import Basis, Weights
from pocketbert.numerics.fusion_plan import fuse_weights
from pocketbert.params import FUSIONS
from tests.export.test_tflite import probe_batch, relative_difference
from tests.export.trained import FAMILIES, MAX_LENGTH, SEQUENCE_LENGTH, build_classifier, make_texts, trained_classifier

LENGTH = 12


def lively(family: str, pooling: str = "mean") -> "object":
    """A model whose every parameter matters: large weights, gains and shifts that are not 1 and 0."""
    model = build_classifier(family, pooling=pooling).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "LayerNorm" in name or "layer_norm" in name:
                parameter.copy_(1 + 0.3 * noise if name.endswith("weight") else 0.3 * noise)
            else:
                parameter.copy_(0.25 * noise)
    return model


def rows() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    batch = {
        "input_ids": random.integers(0, 60, (3, LENGTH)),
        "attention_mask": np.ones((3, LENGTH), int),
        "token_type_ids": random.integers(0, 2, (3, LENGTH)),
    }
    batch["attention_mask"][1, 4:7] = 0
    batch["attention_mask"][2] = 0
    return {name: values.astype(np.int32) for name, values in batch.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_fusion_is_exact(family):
    proofs, together = prove_fusions(lively(family), -1e4, FUSIONS, rows())
    assert all(proof.float64_diff < 1e-12 for proof in proofs), proofs
    assert together < 1e-5
    expected = {
        "bert": {"query_scale", "layer_norm", "one_product"},
        "mobilebert": {"trigrams", "query_scale", "no_norm", "one_product"},
        "bert-gelu_new": {"embedding_sums", "query_scale", "layer_norm", "one_product"},
        "mobilebert-layer_norm": {"trigrams", "query_scale", "one_product"},
    }
    names = {proof.name for proof in proofs}
    assert names == expected.get(family, names)
    assert names >= {"query_scale", "one_product"}


@pytest.mark.parametrize("family", ["bert", "mobilebert"])
def test_split_sums_are_exact(family, monkeypatch):
    """Long ones only: of the 48 and fewer products here, those from 40 on."""
    monkeypatch.setattr(fusion_plan, "LONG_SUM", 40)
    proofs, _ = prove_fusions(lively(family), -1e4, (*FUSIONS, "split_sums"), rows())
    assert proofs[-1].name == "split_sums"
    assert proofs[-1].float64_diff < 1e-12
    assert proofs[-1].changed >= 2


def test_fusions_are_exact_with_cls_pooling():
    proofs, _ = prove_fusions(lively("bert", "cls"), -1e4, FUSIONS, rows())
    assert all(proof.float64_diff < 1e-12 for proof in proofs)


@given(st.sets(st.sampled_from(FUSIONS)))
@settings(max_examples=3, deadline=None)
def test_any_choice_of_fusions_is_exact(chosen):
    with pytest.MonkeyPatch.context() as patch:
        # Made-up gains far from 1 enlarge the rounding of a changed basis (1.3e-5 was seen); the algebra is asked here.
        patch.setattr(fusion_proof, "FLOAT32_LIMIT", 1e-4)
        proofs, _ = prove_fusions(lively("mobilebert"), -1e4, sorted(chosen), rows())
    assert all(proof.float64_diff < FLOAT64_LIMIT for proof in proofs)
    assert {proof.name for proof in proofs} <= chosen


def test_a_fusion_that_is_wrong_fails_by_its_name(monkeypatch):
    def too_small(weights: Weights, query: str, config: object) -> None:
        weights.put(f"{query}.weight", 0.9 * weights.exact(f"{query}.weight"), "query_scale")

    monkeypatch.setattr(fusion_bert, "scale_queries", too_small)
    with pytest.raises(ProofError, match="the fusion query_scale changes the logits"):
        prove_fusions(lively("bert"), -1e4, FUSIONS, rows())


def test_a_fusion_beyond_its_float32_limit_fails_the_export(monkeypatch):
    monkeypatch.setattr(fusion_proof, "FLOAT32_LIMIT", 0.0)
    with pytest.raises(ProofError, match=r"the fusion \w+ changes the logits by .* in float32"):
        prove_fusions(lively("mobilebert"), -1e4, FUSIONS, rows())


@pytest.mark.parametrize("gain", [0.0, 1e6])
def test_a_gain_that_cannot_be_divided_by_stays_in_the_graph(gain):
    model = lively("mobilebert")
    norm = "encoder.encoder.layer.0.ffn.0.output.LayerNorm"
    with torch.no_grad():
        model.get_parameter(f"{norm}.weight")[3] = gain
    weights = fuse_weights(parameters(model), model.encoder.config, FUSIONS, length=LENGTH)
    assert f"{norm}.weight" in weights
    assert "encoder.encoder.layer.0.output.LayerNorm.weight" not in weights
    proofs, _ = prove_fusions(model, -1e4, FUSIONS, rows())
    assert all(proof.float64_diff < 1e-12 for proof in proofs)


def test_gains_that_multiply_up_are_brought_back():
    """Cumulative scales stay within the bounds that half precision bears."""
    model = lively("mobilebert")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("output.LayerNorm.weight"):
                parameter.fill_(0.1)
    weights = fuse_weights(parameters(model), model.encoder.config, FUSIONS, length=LENGTH)
    kept = [name for name in weights.names() if name.endswith("output.LayerNorm.weight")]
    assert kept
    scales = [basis.scale for basis in weights.bases.values()]
    assert all(np.abs(s).min() >= fusion_mobilebert.GAIN_MIN for s in scales if s is not None)
    proofs, _ = prove_fusions(model, -1e4, FUSIONS, rows())
    assert all(proof.float64_diff < 1e-12 for proof in proofs)


def test_a_last_gain_near_zero_is_not_divided_by():
    model = lively("bert")
    norm = "encoder.encoder.layer.1.output.LayerNorm"
    with torch.no_grad():
        model.get_parameter(f"{norm}.weight")[0] = 0.0
    weights = fuse_weights(parameters(model), model.encoder.config, FUSIONS, length=LENGTH)
    assert f"{norm}.weight" in weights
    assert "layer.1" not in weights.bases


def test_no_fusion_leaves_torchs_own_bits():
    model = build_classifier("mobilebert").eval()
    weights = fuse_weights(parameters(model), model.encoder.config, (), length=LENGTH)
    for name, value in parameters(model).items():
        # The converter would fold the norm behind a bottleneck's entry itself.
        if not name.endswith("position_embeddings.weight") and ".bottleneck." not in name.replace("output.b", ""):
            assert weights.value(name).tobytes() == value.tobytes()


@pytest.mark.parametrize("family", ["bert", "mobilebert"])
def test_a_fused_file_computes_what_torch_computes_with_fewer_operations(family):
    from ai_edge_litert import schema_py_generated as schema

    folder = trained_classifier(family)
    model = tflite.load_classifier(folder)
    counts = []
    for fuse in ((), FUSIONS):
        content = tflite.convert(model, SEQUENCE_LENGTH, -1e4, fuse=fuse)
        assert relative_difference(model, content, probe_batch(folder)) < 1e-5
        counts.append(schema.Model.GetRootAs(content, 0).Subgraphs(0).OperatorsLength())
    assert counts[1] < counts[0]


def test_proof_rows_hold_every_kind():
    folder = trained_classifier("bert")
    model = tflite.load_classifier(folder)
    batch = proof_rows(model, TextEncoder(folder), make_texts(8, seed=2)[0], MAX_LENGTH)
    assert batch["input_ids"].shape[1] == 16
    assert (batch["attention_mask"].sum(axis=1) == 0).any()
    assert batch["token_type_ids"].any()


@given(st.floats(-4, 4), st.floats(0.1, 4), st.floats(-4, 4))
def test_a_basis_restores(value, scale, shift):
    state = np.full((2, 3), value, np.float32)
    basis = Basis(np.full(3, scale), np.full(3, shift))
    assert np.allclose(basis.restore(state), value * scale + shift, rtol=1e-5, atol=1e-5)
    assert basis.restore(state).dtype == np.float32

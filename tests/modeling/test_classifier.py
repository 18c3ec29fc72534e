from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from pocketbert.modeling.assemble import encoder_dict, new_classifier, with_eager_attention
from pocketbert.modeling.classifier import ClassifierHead, PocketBertClassifier, pool
from pocketbert.params import HeadParams
from tests.training.toy import LABELS, MULTI_LABELS, VOCABULARY, small_config

FAMILIES = ["bert", "roberta", "distilbert", "mobilebert"]


def classifier_of(family: str, head: HeadParams | None = None) -> PocketBertClassifier:
    torch.manual_seed(5)
    return new_classifier(encoder_dict(small_config(family)), "mean", head or HeadParams(), LABELS).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded_by_transformers_own_way(family: str, tmp_path: Path) -> None:
    model = classifier_of(family)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert isinstance(loaded, PocketBertClassifier)
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    ids = torch.randint(5, len(VOCABULARY), (2, 9))
    assert torch.equal(loaded.eval()(ids).logits, model(ids).logits)
    assert loaded.config.id2label == dict(enumerate(LABELS.names))
    assert loaded.config.label2id["fourth"] == 3
    assert loaded.config.problem_type == "single_label_classification"


@pytest.mark.parametrize("family", FAMILIES)
def test_fresh_weights_are_spread_as_the_encoder_wants(family: str) -> None:
    model = classifier_of(family)
    embeddings = model.encoder.get_input_embeddings().weight
    assert 0.01 < embeddings.std().item() < 0.04
    # torch's own: uniform up to 1 / sqrt(inputs).
    bound = 32**-0.5
    assert 0.8 * bound < model.head.linear_0.weight.abs().max().item() <= bound
    norms = [m for m in model.encoder.modules() if isinstance(m, nn.LayerNorm)]
    assert all(torch.equal(norm.weight, torch.ones_like(norm.weight)) for norm in norms)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_nothing(family: str) -> None:
    model = classifier_of(family)
    ids = torch.randint(5, len(VOCABULARY), (2, 6))
    padded = torch.cat([ids, torch.zeros(2, 4, dtype=ids.dtype)], dim=1)
    mask = torch.cat([torch.ones(2, 6), torch.zeros(2, 4)], dim=1).long()
    # MobileBERT's embeddings see their neighbours: its last token sees one padded position.
    limit = 1e-2 if family == "mobilebert" else 1e-6
    assert (model(padded, mask).logits - model(ids).logits).abs().max().item() < limit


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_head_has_the_depth_it_is_given(depth: int) -> None:
    head = ClassifierHead(HeadParams(depth=depth, width=7), 5, 3)
    linears = [m for m in head if isinstance(m, nn.Linear)]
    assert [m.in_features for m in linears] == [5, *[7] * (depth - 1)]
    assert linears[-1].out_features == 3
    assert sum(isinstance(m, nn.LeakyReLU) for m in head) == depth - 1
    assert all(m.negative_slope == 0.01 for m in head if isinstance(m, nn.LeakyReLU))


def test_fully_padded_row_pools_to_zero() -> None:
    hidden, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 0], [0, 0, 0]])
    for pooling in ("mean", "cls"):
        pooled = pool(hidden, mask, pooling)
        assert torch.equal(pooled[1], torch.zeros(4))
        assert pooled[0].abs().sum() > 0
    assert torch.allclose(pool(hidden, mask, "mean")[0], hidden[0, :2].mean(dim=0))


def test_frozen_encoder_has_no_gradient_and_no_dropout() -> None:
    model = classifier_of("bert", HeadParams(dropout=0.0))
    model.freeze_encoder()
    model.train()
    ids = torch.randint(5, len(VOCABULARY), (2, 6))
    assert torch.equal(model(ids).logits, model(ids).logits)
    model(ids).logits.sum().backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.head.parameters())


@pytest.mark.parametrize(("family", "limit"), [("bert", 40), ("distilbert", 40), ("mobilebert", 40), ("roberta", 39)])
def test_max_tokens_is_what_the_encoder_takes(family: str, limit: int) -> None:
    model = classifier_of(family)
    assert model.max_tokens == limit
    assert model(torch.randint(5, len(VOCABULARY), (1, limit))).logits.isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.randint(5, len(VOCABULARY), (1, limit + 1)))


@pytest.mark.parametrize("family", FAMILIES)
def test_eager_copy_gives_attention_and_the_same_logits(family: str) -> None:
    model = classifier_of(family)
    ids = torch.randint(5, len(VOCABULARY), (2, 6))
    output = with_eager_attention(model).eval()(ids, output_attentions=True)
    assert len(output.attentions) == 3
    assert torch.allclose(output.attentions[0].sum(dim=-1), torch.ones(2, 2, 6))
    assert torch.allclose(output.logits, model(ids).logits, atol=1e-6)


def test_loss_of_a_multi_label_model() -> None:
    model = new_classifier(encoder_dict(small_config("bert")), "cls", HeadParams(), MULTI_LABELS).eval()
    labels = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    output = model(torch.tensor([[2, 8, 3]]), labels=labels)
    expected = nn.functional.binary_cross_entropy_with_logits(output.logits, labels)
    assert torch.equal(output.loss, expected)

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from pocketbert.data.dataset import LabelSet
from pocketbert.modeling.assemble import encoder_dict, new_classifier
from pocketbert.modeling.teacher import open_teacher
from pocketbert.params import HeadParams
from tests.training.toy import LABELS, VOCABULARY, save_checkpoint, small_config

SHUFFLED = ("third", "first", "fourth", "second")
STOCK = ["bert", "roberta", "distilbert", "mobilebert"]


@pytest.mark.parametrize("family", STOCK)
def test_stock_classifier_with_our_labels_is_taken_as_it_is(family: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    config = small_config(family, id2label=dict(enumerate(SHUFFLED)), label2id={n: i for i, n in enumerate(SHUFFLED)})
    stock = AutoModelForSequenceClassification.from_config(config).eval()
    # The stock initialisation leaves all biases 0, which would hide a bias in the wrong row.
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    stock.save_pretrained(tmp_path)
    model, fitted = open_teacher(tmp_path, "mean", HeadParams(), LABELS)
    assert fitted
    ids = torch.randint(5, len(VOCABULARY), (4, 9))
    order = [SHUFFLED.index(name) for name in LABELS.names]
    assert torch.allclose(model.eval()(ids).logits, stock(ids).logits[:, order], atol=1e-4)
    assert model.config.id2label[0] == "first"


def test_own_classifier_is_taken_with_its_classes_reordered(tmp_path: Path) -> None:
    source = new_classifier(encoder_dict(small_config("bert")), "cls", HeadParams(depth=3), LabelSet(SHUFFLED)).eval()
    source.save_pretrained(tmp_path)
    model, fitted = open_teacher(tmp_path, "mean", HeadParams(), LABELS)
    assert fitted
    ids = torch.randint(5, len(VOCABULARY), (4, 9))
    order = [SHUFFLED.index(name) for name in LABELS.names]
    assert torch.allclose(model.eval()(ids).logits, source(ids).logits[:, order], atol=1e-6)


@pytest.mark.parametrize("names", [("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"), ("first", "second", "third")])
def test_classifier_of_other_labels_is_trained_anew(names: tuple[str, ...], tmp_path: Path) -> None:
    config = small_config("bert", id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})
    stock = AutoModelForSequenceClassification.from_config(config)
    stock.save_pretrained(tmp_path)
    model, fitted = open_teacher(tmp_path, "mean", HeadParams(), LABELS)
    assert not fitted
    assert model.head.linear_1.out_features == 4
    word = "embeddings.word_embeddings.weight"
    assert torch.equal(model.encoder.state_dict()[word], stock.bert.state_dict()[word])


@pytest.mark.parametrize("family", [*STOCK, "electra"])
def test_encoder_is_loaded_whole(family: str, tmp_path: Path) -> None:
    extra = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "embedding_size": 16}
    checkpoint = tmp_path / "checkpoint"
    if family == "electra":
        from transformers import ElectraConfig, ElectraModel

        ElectraModel(ElectraConfig(vocab_size=30, intermediate_size=64, **extra)).save_pretrained(checkpoint)
    else:
        save_checkpoint(checkpoint, family)
    from transformers import AutoModel

    model, fitted = open_teacher(checkpoint, "mean", HeadParams(), LABELS)
    assert not fitted
    source = AutoModel.from_pretrained(checkpoint).eval()
    ids = torch.randint(5, len(VOCABULARY), (2, 6))
    assert torch.allclose(model.eval().encoder(ids).last_hidden_state, source(ids).last_hidden_state, atol=1e-6)

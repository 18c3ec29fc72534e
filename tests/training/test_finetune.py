from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pocketbert.artifacts import read_artifact
from pocketbert.data.dataset import LabelSet, Split, read_labels
from pocketbert.errors import CheckpointError, ProofError
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.saving import prove_reload
from pocketbert.params import FinetuneParams, TeachParams
from pocketbert.stage import Metrics
from pocketbert.training.finetune import finetune_head
from pocketbert.training.teach import teach_classifier
from tests.training.conftest import FAST, Taught
from tests.training.toy import LABELS

BATCH = {
    "input_ids": torch.tensor([[2, 8, 17, 3], [2, 18, 3, 0]]),
    "attention_mask": torch.tensor([[1] * 4, [1, 1, 1, 0]]),
}


def finetune(taught: Taught, folder: Path, train: Split | None = None, **params: Any) -> Metrics:
    given = FinetuneParams.model_validate({**FAST, **params})
    return finetune_head(
        given, LABELS, taught.teacher, train or taught.train, taught.valid, folder / "classifier", folder / "plots"
    )


@pytest.mark.parametrize("freeze", [True, False])
def test_only_what_is_not_frozen_changes(taught: Taught, tmp_path: Path, freeze: bool) -> None:
    metrics = finetune(taught, tmp_path, freeze_encoder=freeze, keep_best=False)
    before, after = load_classifier(taught.teacher).state_dict(), load_classifier(tmp_path / "classifier").state_dict()
    encoder_same = all(torch.equal(before[n], after[n]) for n in before if n.startswith("encoder."))
    assert encoder_same == freeze
    assert not torch.equal(before["head.linear_1.weight"], after["head.linear_1.weight"])
    assert metrics["head_kept"] is True
    assert metrics["reload_proven"] is True
    assert read_artifact(tmp_path / "classifier").name == "student"
    assert read_labels(tmp_path / "classifier") == LABELS


def test_nothing_worse_than_what_came_in_is_shipped(taught: Taught, tmp_path: Path) -> None:
    wrong = Split(taught.train.texts, (taught.train.targets + 1) % 4)
    metrics = finetune(taught, tmp_path, wrong, freeze_encoder=False, epochs=2)
    assert metrics["best_epoch"] == 0
    assert metrics["valid_accuracy"] == taught.metrics["valid_accuracy"]
    before, after = load_classifier(taught.teacher).state_dict(), load_classifier(tmp_path / "classifier").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    curve = (tmp_path / "plots" / "curve.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in curve] == ["epoch", "0.0", "1.0", "2.0"]


def test_another_head_is_trained_fresh(taught: Taught, tmp_path: Path) -> None:
    head = {"depth": 3, "width": 12, "activation": "gelu", "dropout": 0.0}
    metrics = finetune(taught, tmp_path, head=head, freeze_encoder=False, epochs=4)
    assert metrics["head_kept"] is False
    assert metrics["valid_accuracy"] > 0.4
    assert load_classifier(tmp_path / "classifier").config.head == head


@pytest.mark.parametrize("fault", ["one value", "missing head", "last tensor's rows swapped"])
def test_planted_fault_in_the_saved_head_is_found(taught: Taught, tmp_path: Path, fault: str) -> None:
    model = load_classifier(taught.teacher)
    model.save_pretrained(tmp_path)
    prove_reload(model, tmp_path, BATCH)
    weights = load_file(tmp_path / "model.safetensors")
    match fault:
        case "one value":
            weights["head.linear_1.weight"][2, 3] += 1e-6
        case "missing head":
            weights = {name: tensor for name, tensor in weights.items() if not name.startswith("head.")}
        case _:
            weights["head.linear_1.weight"] = weights["head.linear_1.weight"].flip(0).contiguous()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ProofError, match=r"head\.linear"):
        prove_reload(model, tmp_path, BATCH)


@pytest.mark.parametrize(("key", "value"), [("pooling", "cls"), ("head", {"depth": 2, "activation": "tanh"})])
def test_planted_fault_in_the_saved_config_is_found(taught: Taught, tmp_path: Path, key: str, value: object) -> None:
    model = load_classifier(taught.teacher)
    model.save_pretrained(tmp_path)
    other = load_classifier(taught.teacher).config
    setattr(other, key, value)
    other.save_pretrained(tmp_path)
    with pytest.raises(ProofError, match="other logits"):
        prove_reload(model, tmp_path, BATCH)


def test_student_of_other_labels_is_refused(taught: Taught, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="other labels"):
        finetune_head(
            FinetuneParams(**FAST), LabelSet(("a", "b", "c", "d")), taught.teacher, taught.train, taught.valid,
            tmp_path / "classifier", tmp_path / "plots",
        )  # fmt: skip


def test_teacher_that_knows_the_labels_is_only_scored(taught: Taught, tmp_path: Path) -> None:
    params = TeachParams(checkpoint=str(taught.teacher), **FAST)
    shuffled = LabelSet(("third", "first", "second", "fourth"))
    order = [shuffled.names.index(name) for name in LABELS.names]
    train, valid = (
        Split(split.texts, torch.tensor(order)[torch.from_numpy(split.targets)].numpy())
        for split in (taught.train, taught.valid)
    )
    metrics = teach_classifier(params, shuffled, train, valid, tmp_path / "teacher", tmp_path / "plots")
    assert metrics["trained"] is False
    assert metrics["steps"] == 0
    assert metrics["valid_accuracy"] == taught.metrics["valid_accuracy"]
    assert (tmp_path / "plots" / "curve.csv").read_text(encoding="utf-8").count("\n") == 2

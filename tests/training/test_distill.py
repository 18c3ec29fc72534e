import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pocketbert.artifacts import read_artifact
from pocketbert.data.dataset import LabelSet
from pocketbert.errors import CheckpointError, ParamsError, TrainingError
from pocketbert.modeling.assemble import encoder_dict, new_classifier, with_eager_attention
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.params import DistillParams, HeadParams, SoftenParams, TeachParams
from pocketbert.stage import Metrics
from pocketbert.training.distill import Distillation, distill_student
from pocketbert.training.soft_labels import SoftLabels, SoftLabelsCard, read_soft_labels
from pocketbert.training.soften import soften_texts
from pocketbert.training.teach import teach_classifier
from tests.training.conftest import FAST, Taught
from tests.training.toy import (
    LABELS,
    MULTI_LABELS,
    VOCABULARY,
    save_checkpoint,
    save_vocabulary,
    small_config,
    toy_split,
)


def distill(taught: Taught, folder: Path, **params: Any) -> Metrics:
    soft = read_soft_labels(taught.soft, taught.train.texts)
    given = DistillParams.model_validate({"epochs": 3, "student": {"kind": "cut", "layers": 2}, **FAST, **params})
    return distill_student(
        given, LABELS, taught.teacher, soft, taught.train, taught.valid, folder / "student", folder / "plots"
    )


def test_cut_student_learns_what_the_teacher_knows(taught: Taught, tmp_path: Path) -> None:
    metrics = distill(taught, tmp_path)
    assert metrics["valid_accuracy"] >= taught.metrics["valid_accuracy"] - 0.05
    artifact = read_artifact(tmp_path / "student")
    assert (artifact.name, artifact.card.format, artifact.card.max_length) == ("distilled", "torch", 32)
    student = load_classifier(tmp_path / "student")
    assert student.encoder.config.num_hidden_layers == metrics["layers"] == 2
    assert not any("projection" in name for name in student.state_dict())


def soft_labels(logits: np.ndarray, unlabelled: np.ndarray) -> SoftLabels:
    card = SoftLabelsCard(
        train_rows=len(logits), train_digest="", unlabelled_rows=len(unlabelled), unlabelled_digest="",
        classes=logits.shape[1], teacher_md5="", tokenizer_digest="",
    )  # fmt: skip
    return SoftLabels(card, logits, ["some text"] * len(unlabelled), unlabelled)


def test_loss_is_the_formula_by_hand() -> None:
    torch.manual_seed(11)
    student = new_classifier(encoder_dict(small_config("bert", hidden_size=16)), "mean", HeadParams(), LABELS).eval()
    teacher = new_classifier(encoder_dict(small_config("bert")), "mean", HeadParams(), LABELS).eval()
    known, more = np.random.default_rng(0).normal(size=(2, 4)), np.random.default_rng(1).normal(size=(1, 4))
    params = DistillParams.model_validate(
        {
            "temperature": 3.0,
            "alpha": 0.7,
            "hidden": {"weight": 0.5, "layer_map": [[0, 0], [2, 3]]},
            "attention": {"weight": 0.25, "layer_map": [[3, 1]]},
        }
    )
    student, teacher = with_eager_attention(student).eval(), with_eager_attention(teacher).eval()
    objective = Distillation(params, soft_labels(known.astype(np.float32), more.astype(np.float32)))
    objective.watch(teacher, student)
    ids = torch.tensor([[2, 8, 9, 3], [2, 18, 3, 0], [2, 6, 17, 3]])
    mask = (ids != 0).long()
    labels = torch.tensor([1, -100, 3])
    # Row 2 of the soft labels is the unlabelled one.
    loss = objective(
        student, {"input_ids": ids, "attention_mask": mask, "labels": labels, "rows": torch.tensor([1, 2, 0])}
    )

    ours = student(ids, mask, output_hidden_states=True, output_attentions=True)
    theirs = teacher(ids, mask, output_hidden_states=True, output_attentions=True)
    soft = torch.tensor(np.stack([known[1], more[0], known[0]]), dtype=torch.float32)
    expected = 0.0
    for row in range(3):
        p, q = (soft[row] / 3.0).softmax(0), (ours.logits[row] / 3.0).softmax(0)
        expected += 0.7 * 9.0 * (p * (p / q).log()).sum().item() / 3
        if labels[row] >= 0:
            expected += -0.3 * ours.logits[row].log_softmax(0)[labels[row]].item() / 3
        tokens = int(mask[row].sum())
        for index, other in ((0, 0), (2, 3)):
            projected = objective.projections[str(index)](ours.hidden_states[index][row, :tokens])
            expected += 0.5 * (projected - theirs.hidden_states[other][row, :tokens]).square().mean().item() / 3
        a = theirs.attentions[0][row].mean(0)[:tokens, :tokens]
        b = ours.attentions[2][row].mean(0)[:tokens, :tokens]
        expected += 0.25 * (a * (a / b).log()).sum(1).mean().item() / 3
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_teacher_is_neither_trained_nor_saved_with_the_projections() -> None:
    teacher = new_classifier(encoder_dict(small_config("bert")), "mean", HeadParams(), LABELS)
    student = new_classifier(encoder_dict(small_config("bert", hidden_size=16)), "mean", HeadParams(), LABELS)
    params = DistillParams.model_validate({"hidden": {"weight": 1.0, "layer_map": [[3, 3]]}})
    objective = Distillation(params, soft_labels(np.zeros((1, 4)), np.zeros((0, 4))))
    objective.watch(teacher, student)
    assert sorted(objective.state_dict()) == ["projections.3.bias", "projections.3.weight"]


def test_projections_are_trained_with_the_student(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[nn.Module, torch.Tensor]] = []
    watch = Distillation.watch

    def spy(self: Distillation, *models: Any) -> None:
        watch(self, *models)
        seen.append((self.projections["2"], self.projections["2"].weight.detach().clone()))

    monkeypatch.setattr(Distillation, "watch", spy)
    config = {
        "kind": "config",
        "family": "bert",
        "config": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    }
    distill(
        taught, tmp_path, student=config, epochs=1,
        hidden={"weight": 1.0, "layer_map": [[2, 3]]}, attention={"weight": 1.0, "layer_map": [[1, 1]]},
    )  # fmt: skip
    layer, before = seen[0]
    assert not torch.equal(layer.weight, before)
    # About one head rate a step: gradients of earlier steps do not pile up.
    assert (layer.weight - before).abs().max().item() < 0.5


@pytest.mark.parametrize(
    ("params", "error", "says"),
    [
        ({"student": {"kind": "cut", "layers": 9}}, ParamsError, "only 3"),
        ({"student": {"kind": "cut", "layers": [0, 3]}}, ParamsError, "3 layers"),
        ({"hidden": {"weight": 1.0, "layer_map": [[3, 3]]}}, TrainingError, "the student has the layers 0 to 2"),
        ({"hidden": {"weight": 1.0, "layer_map": [[2, 4]]}}, TrainingError, "the teacher has the layers 0 to 3"),
        ({"attention": {"weight": 1.0, "layer_map": [[0, 0]]}}, TrainingError, "layers 1 to 2"),
        ({"max_length": 41}, ParamsError, "limit of 40"),
        ({"student": {"kind": "checkpoint", "checkpoint": "/no/such"}}, CheckpointError, "/no/such"),
    ],
)
def test_impossible_students_are_refused(
    taught: Taught, tmp_path: Path, params: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        distill(taught, tmp_path, **params)


def test_student_with_a_tokenizer_of_its_own(taught: Taught, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "other", "distilbert", vocab_size=len(VOCABULARY) + 2)
    save_vocabulary(checkpoint, ["[PAD]", "more", *VOCABULARY[1:], "words"])
    student = {"kind": "checkpoint", "checkpoint": str(checkpoint)}
    metrics = distill(taught, tmp_path, student=student, epochs=4)
    assert metrics["valid_accuracy"] > 0.5
    with pytest.raises(TrainingError, match="token by token"):
        distill(taught, tmp_path, student=student, hidden={"weight": 1.0, "layer_map": [[1, 1]]})


def test_teacher_of_other_labels_is_refused(taught: Taught, tmp_path: Path) -> None:
    soft = read_soft_labels(taught.soft, taught.train.texts)
    others = LabelSet(("a", "b", "c", "d"))
    with pytest.raises(TrainingError, match="other labels"):
        distill_student(
            DistillParams(**FAST),
            others,
            taught.teacher,
            soft,
            taught.train,
            taught.valid,
            tmp_path / "s",
            tmp_path / "p",
        )


def test_multi_label_with_unlabelled_text(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint")
    train, valid = toy_split(480, 1, MULTI_LABELS), toy_split(80, 2, MULTI_LABELS)
    teach = TeachParams(checkpoint=str(checkpoint), epochs=8, **FAST)
    taught = teach_classifier(teach, MULTI_LABELS, train, valid, tmp_path / "teacher", tmp_path / "plots")
    assert taught["valid_accuracy"] > 0.5
    (tmp_path / "more.txt").write_text("\n".join(toy_split(100, 3).texts), encoding="utf-8")
    soften_texts(SoftenParams(unlabelled=tmp_path / "more.txt"), tmp_path / "teacher", train.texts, tmp_path / "soft")
    soft = read_soft_labels(tmp_path / "soft", train.texts)
    params = DistillParams.model_validate({"student": {"kind": "cut", "layers": 2}, "epochs": 3, **FAST})
    metrics = distill_student(
        params, MULTI_LABELS, tmp_path / "teacher", soft, train, valid, tmp_path / "student", tmp_path / "plots"
    )
    assert metrics["steps"] == 3 * -(-580 // 16)
    assert metrics["valid_accuracy"] > 0.4
    assert load_classifier(tmp_path / "student").config.problem_type == "multi_label_classification"
    shutil.rmtree(tmp_path / "student")

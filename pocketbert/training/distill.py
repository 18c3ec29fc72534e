"""Training of a student on the teacher's logits, and on its hidden states and attention where asked for."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import set_seed
from transformers.modeling_outputs import SequenceClassifierOutput

from pocketbert.data.dataset import LabelSet, Split
from pocketbert.errors import TrainingError
from pocketbert.modeling.assemble import check_fit, label_names, with_eager_attention
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.modeling.losses import attention_loss, hard_loss, hidden_loss, soft_loss
from pocketbert.modeling.saving import save_classifier
from pocketbert.modeling.students import build_student
from pocketbert.params import DistillParams, HiddenLoss
from pocketbert.stage import Metrics
from pocketbert.training.loop.batches import tokenize_rows
from pocketbert.training.loop.objective import Objective
from pocketbert.training.loop.trainer import train
from pocketbert.training.loop.validation import Validation
from pocketbert.training.soft_labels import SoftLabels, tokenizer_digest


def distill_student(
    params: DistillParams,
    labels: LabelSet,
    teacher: Path,
    soft: SoftLabels,
    train_split: Split,
    valid: Split,
    output: Path,
    plots: Path,
) -> Metrics:
    """Train the student that params.yaml describes and write it as the artifact `distilled`."""
    set_seed(params.seed)
    source = load_classifier(teacher)
    if label_names(source.config) != labels.names or soft.card.classes != len(labels):
        raise TrainingError(f"the teacher in {teacher} was trained for other labels", "Run `dvc repro teach`.")
    output.mkdir(parents=True, exist_ok=True)
    model, encoder = build_student(params, labels, source, teacher, output)
    check_fit(model, encoder, params.max_length)
    objective = Distillation(params, soft)
    if params.hidden.weight or params.attention.weight:
        if tokenizer_digest(output) != tokenizer_digest(teacher):
            raise TrainingError(
                "hidden-state and attention losses compare token by token, but the student's tokenizer is another one",
                "Set distill.hidden.weight and distill.attention.weight to 0, or use the teacher's tokenizer.",
            )
        if params.attention.weight:
            # Fused attention does not give its probabilities away.
            source, model = with_eager_attention(source), with_eager_attention(model)
        objective.watch(source, model)
    rows = tokenize_rows(train_split, encoder, params.max_length, soft.unlabelled_texts)
    validation = Validation.of(valid, encoder, params)
    outcome = train(model, objective, rows, validation, params, plots, processes=params.processes)
    artifact = save_classifier(model, "distilled", labels, encoder, params.max_length, output)
    return {
        **outcome.metrics(),
        "parameters": model.num_parameters(),
        "layers": int(model.encoder.config.num_hidden_layers),
        "size_bytes": artifact.size_bytes,
    }


class Distillation(Objective):
    """alpha * T^2 * KL + (1 - alpha) * CE + weight * hidden MSE + weight * attention KL, mean over the rows.

    A row without a label has no CE term. The teacher runs along only for the hidden and attention terms.
    """

    def __init__(self, params: DistillParams, soft: SoftLabels) -> None:
        super().__init__()
        self.params = params
        self.soft = soft
        self.projections = nn.ModuleDict()
        # In a tuple, so that the teacher is no submodule: it is neither trained nor saved.
        self._teacher: tuple[PocketBertClassifier, ...] = ()

    def watch(self, teacher: PocketBertClassifier, student: PocketBertClassifier) -> None:
        """Switch the hidden and attention terms on; raises TrainingError for a layer that does not exist."""
        ours, theirs = (int(model.encoder.config.num_hidden_layers) for model in (student, teacher))
        _check_layer_map(self.params.hidden, "hidden", 0, ours, theirs)
        _check_layer_map(self.params.attention, "attention", 1, ours, theirs)
        width, wanted = student.encoder.config.hidden_size, teacher.encoder.config.hidden_size
        if width != wanted:
            for index, _ in self.params.hidden.layer_map:
                self.projections[str(index)] = nn.Linear(width, wanted)
        self._teacher = (teacher.eval().requires_grad_(False),)

    def forward(self, model: PocketBertClassifier, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean loss over the rows of `batch`."""
        params, inputs = self.params, {name: batch[name] for name in ("input_ids", "attention_mask")}
        extras = {
            "output_hidden_states": params.hidden.weight > 0,
            "output_attentions": params.attention.weight > 0,
        }
        output = model(**inputs, **extras)
        multi_label = batch["labels"].is_floating_point()
        teacher_logits = self._soft_logits(batch["rows"]).to(output.logits.device)
        loss = params.alpha * soft_loss(output.logits, teacher_logits, params.temperature, multi_label)
        loss = loss + (1.0 - params.alpha) * hard_loss(output.logits, batch["labels"])
        if self._teacher:
            with torch.no_grad():
                target = self._teacher[0].to(model.device)(**inputs, **extras)
            loss = loss + self._layer_losses(output, target, batch["attention_mask"])
        return loss.mean()

    def _soft_logits(self, rows: Tensor) -> Tensor:
        """The teacher's logits [B, C] of rows; the unlabelled ones follow the training rows."""
        indices, labelled = rows.cpu().numpy(), self.soft.card.train_rows
        logits = torch.empty(len(indices), self.soft.card.classes)
        known = indices < labelled
        logits[torch.from_numpy(known)] = torch.from_numpy(self.soft.train[indices[known]]).float()
        logits[torch.from_numpy(~known)] = torch.from_numpy(self.soft.unlabelled[indices[~known] - labelled]).float()
        return logits

    def _layer_losses(self, output: SequenceClassifierOutput, target: SequenceClassifierOutput, mask: Tensor) -> Tensor:
        loss = torch.zeros(len(mask), device=mask.device)
        hidden, attention = self.params.hidden, self.params.attention
        if hidden.weight:
            for ours, theirs in hidden.layer_map:
                state = output.hidden_states[ours]
                if self.projections:
                    state = self.projections[str(ours)](state)
                loss = loss + hidden.weight * hidden_loss(state, target.hidden_states[theirs], mask)
        if attention.weight:
            for ours, theirs in attention.layer_map:
                # Attention has no layer 0: the first layer is 1 in params.yaml as it is for hidden states.
                pair = output.attentions[ours - 1], target.attentions[theirs - 1]
                loss = loss + attention.weight * attention_loss(*pair, mask)
        return loss


def _check_layer_map(loss: HiddenLoss, name: str, first: int, ours: int, theirs: int) -> None:
    for pair in loss.layer_map if loss.weight else []:
        for index, total, whose in ((pair[0], ours, "student"), (pair[1], theirs, "teacher")):
            if not first <= index <= total:
                raise TrainingError(
                    f"distill.{name}.layer_map has {list(pair)}, but the {whose} has the layers {first} to {total}",
                    "Give pairs of (student layer, teacher layer); 0 is the embeddings, which have no attention.",
                )

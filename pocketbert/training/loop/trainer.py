"""Training of a classifier: Hugging Face's Trainer with our batches, two learning rates, guard and checkpoints."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainingArguments

from pocketbert.data.dataset import Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.modeling.disk import storage_errors
from pocketbert.modeling.inference import accuracy, predict_logits
from pocketbert.modeling.losses import hard_loss
from pocketbert.params import OptimizerParams
from pocketbert.stage import current_stage
from pocketbert.training.loop.batches import LengthBuckets, TrainingRows
from pocketbert.training.loop.curves import write_curves
from pocketbert.training.loop.guard import clip_gradients, diverged
from pocketbert.training.loop.objective import Objective
from pocketbert.training.loop.reporter import Reporter
from pocketbert.training.loop.storage import BestWeights, find_checkpoint, mark_complete

logger = logging.getLogger("pocketbert")

# Against spikes only: 1.0, the usual limit, scales nearly every early step down and slows a fresh head.
_GRADIENT_NORM_MAX = 10.0
_POINTS_IN_LOSS_CURVE = 200
_OBJECTIVE_FILE = "objective.safetensors"


@dataclass(frozen=True)
class Outcome:
    """What a training came to; `epoch` is the one whose weights the model now has."""

    epoch: float
    valid_accuracy: float
    valid_loss: float
    # Mean over the last epoch, None where there was no step.
    train_loss: float | None
    steps: int

    def metrics(self) -> dict[str, float | int | None]:
        """The outcome as a stage's metrics."""
        return {
            "valid_accuracy": self.valid_accuracy,
            "valid_loss": self.valid_loss,
            "best_epoch": self.epoch,
            "train_loss": self.train_loss,
            "steps": self.steps,
        }


@dataclass(frozen=True)
class Validation:
    """The validation split, tokenized."""

    ids: list[list[int]]
    split: Split
    pad_id: int
    batch_size: int

    @classmethod
    def of(cls, split: Split, encoder: TextEncoder, params: OptimizerParams) -> "Validation":
        """Tokenize a split as training does."""
        ids = encoder.encode_rows(split.texts, params.max_length)
        return cls(ids, split, encoder.pad_id, 2 * params.batch_size)

    def score(self, model: PocketBertClassifier) -> tuple[float, float]:
        """Mean loss (without smoothing) and accuracy of the model."""
        logits = predict_logits(model, self.ids, self.pad_id, self.batch_size)
        loss = hard_loss(torch.from_numpy(logits), torch.from_numpy(self.split.targets)).mean()
        return float(loss), accuracy(logits, self.split.targets)


def train(
    model: PocketBertClassifier,
    objective: Objective,
    rows: TrainingRows,
    validation: Validation,
    params: OptimizerParams,
    plots: Path,
    *,
    score_first: bool = False,
) -> Outcome:
    """Train `model` in place and write its curves into `plots`; the best epoch's weights stay if `keep_best`.

    A stage's training saves a checkpoint every epoch and every 30 s, and goes on from it after a kill. With
    `score_first` the untrained model is a candidate for the best one, as epoch 0. Raises TrainingError on NaN.
    """
    stage = current_stage()
    with _state_folder() as folder:
        best = BestWeights(folder) if params.keep_best else None
        trainer = ClassifierTrainer(model, objective, rows, validation, params, folder, resumable=stage is not None)
        trainer.add_callback(Reporter(trainer, best, score_first=score_first))
        checkpoint = find_checkpoint(folder)
        if checkpoint is not None:
            logger.info("going on from %s", checkpoint)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        history = trainer.state.log_history
        if best is not None:
            best.restore(model)
    model.eval()
    train_loss = write_curves(history, plots)
    scores = [entry for entry in history if "eval_loss" in entry]
    final = next(e for e in scores if e["epoch"] == best.epoch) if best is not None else scores[-1]
    return Outcome(
        float(final["epoch"]), final["eval_accuracy"], final["eval_loss"], train_loss, trainer.state.global_step
    )


@contextmanager
def _state_folder() -> Iterator[Path]:
    """The running stage's checkpoint folder, which survives a kill, or a temporary one without a stage."""
    stage = current_stage()
    if stage is not None:
        stage.checkpoint_folder.mkdir(parents=True, exist_ok=True)
        yield stage.checkpoint_folder
        return
    with tempfile.TemporaryDirectory(prefix="pocketbert-") as name:
        yield Path(name)


class ClassifierTrainer(Trainer):
    """Trainer whose loss is an `Objective`; fp32, one process."""

    def __init__(
        self,
        model: PocketBertClassifier,
        objective: Objective,
        rows: TrainingRows,
        validation: Validation,
        params: OptimizerParams,
        folder: Path,
        *,
        resumable: bool,
    ) -> None:
        steps = -(-len(rows) // params.batch_size) * params.epochs
        arguments = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=params.epochs,
            per_device_train_batch_size=params.batch_size,
            learning_rate=params.learning_rate,
            weight_decay=params.weight_decay,
            warmup_ratio=params.warmup_fraction,
            lr_scheduler_type="linear",
            # `training_step` clips, because it must look at the norm before anything is scaled by it.
            max_grad_norm=0.0,
            eval_strategy="epoch",
            save_strategy="epoch" if resumable else "no",
            logging_steps=max(1, round(steps / _POINTS_IN_LOSS_CURVE)),
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            seed=params.seed,
        )
        super().__init__(model, arguments, train_dataset=rows, data_collator=rows.collate, eval_dataset=rows)
        self.objective = objective.to(self.args.device)
        self.validation = validation
        self.params = params
        self.resumable = resumable
        self.remove_callback(PrinterCallback)

    def create_optimizer(self) -> torch.optim.Optimizer:
        """AdamW with a learning rate for the encoder and one for the head; no decay of biases and norms."""
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        named = [*self.model.named_parameters(), *((f"head.{n}", p) for n, p in self.objective.named_parameters())]
        for name, parameter in named:
            if parameter.requires_grad:
                key = (name.startswith("head."), parameter.ndim > 1)
                groups.setdefault(key, []).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "lr": self.params.head_learning_rate if head else self.params.learning_rate,
                    "weight_decay": self.params.weight_decay if decay else 0.0,
                }
                for (head, decay), parameters in groups.items()
            ],
            fused=True,
        )
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthBuckets:  # noqa: ARG002
        return LengthBuckets(self.train_dataset, self.params.batch_size, self.params.seed)

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """The objective's loss of a batch."""
        return self.objective(model, inputs)

    def training_step(self, model: Any, inputs: dict[str, Tensor], *arguments: Any, **named: Any) -> Tensor:
        """One step's loss, its gradients checked and clipped; raises TrainingError on NaN."""
        self.objective.zero_grad()
        loss: Tensor = super().training_step(model, inputs, *arguments, **named)
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if not (torch.isfinite(loss) and clip_gradients(trained, _GRADIENT_NORM_MAX)):
            raise diverged(self.state.global_step + 1, self.model, self.objective, self._prepare_inputs(inputs))
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Loss and accuracy over the validation split."""
        loss, right = self.validation.score(self.model)
        metrics = {"eval_loss": loss, "eval_accuracy": right}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        with storage_errors(folder.parent):
            super()._save_checkpoint(model, trial)
            own = self.objective.state_dict()
            if own:
                save_file(own, str(folder / _OBJECTIVE_FILE))
            mark_complete(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        own = Path(resume_from_checkpoint, _OBJECTIVE_FILE)
        if own.is_file():
            self.objective.load_state_dict(load_file(str(own)))

"""Training of a classifier: Hugging Face's Trainer with our batches, two learning rates, guard and checkpoints."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments

from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.modeling.disk import storage_errors
from pocketbert.params import OptimizerParams
from pocketbert.stage import current_stage
from pocketbert.training.loop.batches import LengthBuckets, TrainingRows
from pocketbert.training.loop.curves import write_curves
from pocketbert.training.loop.group import ALONE, Group
from pocketbert.training.loop.guard import clip_gradients, diverged
from pocketbert.training.loop.objective import Objective
from pocketbert.training.loop.processes import joined
from pocketbert.training.loop.reporter import Reporter
from pocketbert.training.loop.storage import BestWeights, find_checkpoint, mark_complete, state_folder
from pocketbert.training.loop.validation import Validation

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


def train(
    model: PocketBertClassifier,
    objective: Objective,
    rows: TrainingRows,
    validation: Validation,
    params: OptimizerParams,
    plots: Path,
    *,
    score_first: bool = False,
    processes: int = 1,
) -> Outcome:
    """Train `model` in place and write its curves into `plots`; the best epoch's weights stay if `keep_best`.

    A stage's training saves a checkpoint every epoch and every 30 s, and goes on from it after a kill. With
    `score_first` the untrained model is a candidate for the best one, as epoch 0. With several `processes`
    (processes.py), those that only help end here. Raises TrainingError on NaN.
    """
    stage = current_stage()
    with joined(processes) as group, state_folder() as folder:
        best = BestWeights(folder) if params.keep_best and group.rank == 0 else None
        trainer = ClassifierTrainer(
            model, objective, rows, validation, params, folder, resumable=stage is not None, group=group
        )
        trainer.add_callback(Reporter(trainer, best, group, score_first=score_first))
        checkpoint = group.copy_folder(find_checkpoint(folder), folder)
        if checkpoint is not None:
            logger.info("going on from %s", checkpoint)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if group.rank > 0:
            raise SystemExit(0)
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


def _collate_share(rows: TrainingRows, group: Group, indices: list[int]) -> dict[str, Tensor]:
    """This process's part of a batch, and its weight in the mean over the processes."""
    own, weight = group.share(indices)
    return rows.collate(own) | {"weight": torch.tensor(weight)}


class ClassifierTrainer(Trainer):
    """Trainer whose loss is an `Objective`; fp32, alone or as one of a group of processes."""

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
        group: Group = ALONE,
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
            use_cpu=group.size > 1,
            ddp_find_unused_parameters=False,
        )
        collate = rows.collate if group.size == 1 else partial(_collate_share, rows, group)
        super().__init__(model, arguments, train_dataset=rows, data_collator=collate, eval_dataset=rows)
        self.group = group
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

    def get_train_dataloader(self) -> DataLoader:
        """All batches in every process: `_collate_share` takes each one's rows, not accelerate."""
        if self.group.size == 1:
            return super().get_train_dataloader()
        loader = DataLoader(
            self.train_dataset,
            batch_size=self.params.batch_size,
            sampler=self._get_train_sampler(),
            collate_fn=self.data_collator,
        )
        return prepare_data_loader(loader, self.args.device, num_processes=1, process_index=0)

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """The objective's loss of a batch (of this process's rows, weighted)."""
        loss = self.objective(model, inputs)
        return loss if self.group.size == 1 else loss * inputs["weight"]

    def training_step(self, model: Any, inputs: dict[str, Tensor], *arguments: Any, **named: Any) -> Tensor:
        """One step's loss, its gradients checked and clipped; raises TrainingError on NaN."""
        self.objective.zero_grad()
        if self.group.size > 1:
            # Dropout is then a function of the step and the process, so that nothing of it needs to be saved.
            torch.manual_seed(
                (self.params.seed * 1_000_003 + self.state.global_step) * self.group.size + self.group.rank
            )
        loss: Tensor = super().training_step(model, inputs, *arguments, **named)
        if self.group.size > 1:
            loss = self.group.mean(loss)
            # DistributedDataParallel sees to the model's gradients alone.
            for parameter in self.objective.parameters():
                parameter.grad = self.group.mean(parameter.grad) if parameter.grad is not None else None
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if not (torch.isfinite(loss) and clip_gradients(trained, _GRADIENT_NORM_MAX)):
            raise diverged(self.state.global_step + 1, self.model, self.objective, self._prepare_inputs(inputs))
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Loss and accuracy over the validation split."""
        loss, right = self.validation.score(self.model, self.group)
        metrics = {"eval_loss": loss, "eval_accuracy": right}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        with storage_errors(folder.parent):
            # All processes take part: it sums figures up over them.
            super()._save_checkpoint(model, trial)
            if self.group.rank > 0:
                return
            own = self.objective.state_dict()
            if own:
                save_file(own, str(folder / _OBJECTIVE_FILE))
            mark_complete(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        own = Path(resume_from_checkpoint, _OBJECTIVE_FILE)
        if own.is_file():
            self.objective.load_state_dict(load_file(str(own)))

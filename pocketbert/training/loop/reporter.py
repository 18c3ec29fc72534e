"""What happens beside the steps of a training: timed checkpoints, the best weights, log lines, live metrics."""

import logging
import time
from typing import Any

from transformers import Trainer, TrainerCallback

from pocketbert.stage import current_stage
from pocketbert.training.loop.group import Group
from pocketbert.training.loop.storage import BestWeights

logger = logging.getLogger("pocketbert")

# Seconds of work that a kill may cost at most.
SAVE_EVERY_S = 30.0
_PUBLIC_NAMES = {
    "loss": "train_loss",
    "learning_rate": "learning_rate",
    "eval_loss": "valid_loss",
    "eval_accuracy": "valid_accuracy",
}


class Reporter(TrainerCallback):
    """Callback of one training; with `score_first` the model as it came is epoch 0."""

    def __init__(self, trainer: Trainer, best: BestWeights | None, group: Group, *, score_first: bool) -> None:
        self.trainer = trainer
        self.best = best
        self.group = group
        self.score_first = score_first
        self.saved_at = time.monotonic()

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Score the model as it came, once."""
        if self.score_first and state.global_step == 0:
            self.trainer.evaluate()

    def on_step_end(self, args: Any, _state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint when the last one is old; the loss so far is logged with it, lest it be lost."""
        due = args.save_strategy != "no" and time.monotonic() - self.saved_at > SAVE_EVERY_S
        if self.group.follow(due):
            control.should_save = control.should_log = True

    def on_epoch_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
        """Have the epoch's last losses logged before its evaluation."""
        control.should_log = True

    def on_save(self, *_: Any, **__: Any) -> None:
        """Count the time to the next checkpoint from here."""
        self.saved_at = time.monotonic()

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
        """Pass the figures on to the tracking store."""
        stage = current_stage()
        if stage is not None:
            public = {_PUBLIC_NAMES[name]: value for name, value in logs.items() if name in _PUBLIC_NAMES}
            stage.log_metrics(public, state.global_step)

    def on_evaluate(self, args: Any, state: Any, _control: Any, metrics: dict[str, float], **_: Any) -> None:
        """One line an epoch; keep the weights if they are the best."""
        epoch = state.epoch or 0.0
        logger.info(
            "epoch %g of %g: validation accuracy %.4f, loss %.4f",
            epoch, args.num_train_epochs, metrics["eval_accuracy"], metrics["eval_loss"],
        )  # fmt: skip
        if self.best is not None:
            self.best.offer(self.trainer.model, epoch, metrics["eval_accuracy"], metrics["eval_loss"])

"""Program of test_processes.py: one process of a distillation with a projection. Without RANK it is the only one."""

import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pocketbert.data.dataset import read_labels
from pocketbert.errors import TrainingError
from pocketbert.params import DistillParams
from pocketbert.stage import StageContext, _context
from pocketbert.training import distill
from pocketbert.training.loop import reporter
from pocketbert.training.soft_labels import read_soft_labels
from tests.training.conftest import FAST
from tests.training.toy import toy_split

EPOCHS, STEPS = 2, 62
# The last batch of an epoch has one row: the second process has none.
ROWS = 481


class _Interrupted(reporter.Reporter):
    """Saves at one step, and is killed some steps later."""

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        super().on_step_end(args, state, control, **named)
        if state.global_step == 35:
            control.should_save = control.should_log = True
        if state.global_step == 40 and self.group.rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class _Poisoned(distill.Distillation):
    """Is not a number at the third step, in the last process only."""

    steps = 0

    def forward(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        loss = super().forward(model, batch)
        self.steps += model.training
        return loss * float("nan") if self.steps == 3 and os.environ["RANK"] == "1" else loss


def train(mode: str, teacher: Path, soft: Path, state: Path, output: Path) -> None:
    """`mode`: whole, interrupted or poisoned."""
    if mode == "interrupted":
        sys.modules["pocketbert.training.loop.trainer"].Reporter = _Interrupted  # type: ignore[attr-defined]
    if mode == "poisoned":
        distill.Distillation = _Poisoned  # type: ignore[misc]
    training, valid = toy_split(ROWS, seed=1), toy_split(81, seed=2)
    student = {"kind": "config", "family": "bert", "config": {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}}  # fmt: skip
    params = DistillParams.model_validate(
        {"epochs": EPOCHS, "student": student, "hidden": {"weight": 0.1, "layer_map": [[2, 3]]},
         "head": {"dropout": 0.0}, "processes": int(os.environ.get("WORLD_SIZE", "1")), **FAST}
    )  # fmt: skip
    token = _context.set(StageContext("distill", state, None))
    try:
        labels, logits = read_labels(teacher), read_soft_labels(soft, training.texts)
        distill.distill_student(params, labels, teacher, logits, training, valid, output / "student", output / "plots")
    finally:
        _context.reset(token)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(1)
    try:
        train(sys.argv[1], *map(Path, sys.argv[2:]))
    except TrainingError as error:
        print(f"TrainingError: {error}", file=sys.stderr)
        sys.exit(error.exit_code)

"""Program of test_resume.py: distil with a projection inside a stage, saving a checkpoint every few steps."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

from pocketbert.data.dataset import read_labels
from pocketbert.params import DistillParams
from pocketbert.stage import StageContext, _context
from pocketbert.training.distill import distill_student
from pocketbert.training.loop import reporter
from pocketbert.training.soft_labels import read_soft_labels
from tests.training.conftest import FAST
from tests.training.toy import toy_split

EPOCHS = 2
STEPS = EPOCHS * 30


class _Slow(reporter.Reporter):
    """Leaves the test time to kill between two checkpoints."""

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        super().on_step_end(*arguments, **named)
        time.sleep(0.01)


def main() -> None:
    """Arguments: teacher, soft labels, checkpoint folder, output folder."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    teacher, soft, state, output = map(Path, sys.argv[1:])
    reporter.SAVE_EVERY_S = 0.3
    sys.modules["pocketbert.training.loop.trainer"].Reporter = _Slow  # type: ignore[attr-defined]
    _context.set(StageContext("distill", state, None))
    train, valid = toy_split(480, seed=1), toy_split(80, seed=2)
    student = {"kind": "config", "family": "bert", "config": {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}}  # fmt: skip
    params = DistillParams.model_validate(
        {"epochs": EPOCHS, "student": student, "hidden": {"weight": 0.1, "layer_map": [[2, 3]]}, **FAST}
    )
    labels, logits = read_labels(teacher), read_soft_labels(soft, train.texts)
    distill_student(params, labels, teacher, logits, train, valid, output / "student", output / "plots")


if __name__ == "__main__":
    main()

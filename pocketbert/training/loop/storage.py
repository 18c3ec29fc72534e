"""Checkpoints of a training that was killed, and the best weights so far, as files that are whole or absent."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from pocketbert.modeling.disk import storage_errors
from pocketbert.stage import current_stage

# Written last: a checkpoint without it was cut off and is worth nothing.
_COMPLETE = "complete"
_NUMBERED = re.compile(r"checkpoint-(\d+)$")


@contextmanager
def state_folder() -> Iterator[Path]:
    """The running stage's checkpoint folder, which survives a kill, or a temporary one without a stage."""
    stage = current_stage()
    if stage is not None:
        stage.checkpoint_folder.mkdir(parents=True, exist_ok=True)
        yield stage.checkpoint_folder
        return
    with tempfile.TemporaryDirectory(prefix="pocketbert-") as name:
        yield Path(name)


def mark_complete(folder: Path) -> None:
    """Declare the checkpoint `folder` whole, and drop the older ones beside it."""
    (folder / _COMPLETE).touch()
    for other in _numbered(folder.parent):
        if other != folder:
            shutil.rmtree(other)


def find_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`, None where there is none; cut-off ones are deleted."""
    whole: Path | None = None
    for checkpoint in _numbered(folder):
        if (checkpoint / _COMPLETE).is_file():
            whole = checkpoint
        else:
            shutil.rmtree(checkpoint)
    return whole


def _numbered(folder: Path) -> list[Path]:
    found = [(int(match[1]), path) for path in folder.glob("checkpoint-*") if (match := _NUMBERED.match(path.name))]
    return [path for _, path in sorted(found)]


class BestWeights:
    """The weights of the epoch with the highest validation accuracy, of equals that with the lowest validation loss.

    (A multi-label model may be right about no whole row for epochs, and learn all the same.)
    """

    def __init__(self, folder: Path) -> None:
        self._weights = folder / "best.safetensors"
        self._record = folder / "best.json"
        self.epoch: float | None = None
        self.accuracy, self.loss = -1.0, float("inf")
        if self._record.is_file():
            document = json.loads(self._record.read_text(encoding="utf-8"))
            self.epoch, self.accuracy, self.loss = document["epoch"], document["accuracy"], document["loss"]

    def offer(self, model: nn.Module, epoch: float, accuracy: float, loss: float) -> None:
        """Keep the model's weights if they are better than the best so far."""
        if (accuracy, -loss) <= (self.accuracy, -self.loss):
            return
        temporary = self._weights.with_suffix(".tmp")
        with storage_errors(self._weights.parent):
            save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, str(temporary))
            temporary.rename(self._weights)
            temporary.write_text(json.dumps({"epoch": epoch, "accuracy": accuracy, "loss": loss}), encoding="utf-8")
            temporary.rename(self._record)
        self.epoch, self.accuracy, self.loss = epoch, accuracy, loss

    def restore(self, model: nn.Module) -> None:
        """Load the best weights into the model."""
        model.load_state_dict(load_file(str(self._weights)))

"""The layers' outputs of a torch classifier."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from pocketbert.data.tokenize import Batch
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.numerics.layers import States, name_layers


class TorchStates:
    """Hidden states by transformers' own output, the head's by hooks on its linear layers."""

    def __init__(self, model: PocketBertClassifier) -> None:
        self._model = model
        self._linear = [m for m in model.head.modules() if isinstance(m, nn.Linear)]
        self.places: dict[str, str] = {}

    def states(self, row: Batch) -> States:
        """The layers' outputs for a batch of one row."""
        tensors = {name: torch.from_numpy(values.astype(np.int64)) for name, values in row.items()}
        with _inputs_of(self._linear) as pooled, torch.inference_mode():
            output = self._model(**tensors, output_hidden_states=True)
        named = name_layers([state[0] for state in output.hidden_states], [*pooled, output.logits])
        return {name: state.float().numpy() for name, state in named.items()}


@contextmanager
def _inputs_of(layers: list[nn.Linear]) -> Iterator[list[torch.Tensor]]:
    """What the layers are given while the block runs, in the order of their calls."""
    seen: list[torch.Tensor] = []
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()

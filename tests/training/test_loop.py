import csv
import errno
import itertools
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import TrainingError
from pocketbert.modeling.assemble import encoder_dict, new_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.modeling.disk import storage_errors
from pocketbert.modeling.inference import accuracy, predict_logits
from pocketbert.params import HeadParams, OptimizerParams
from pocketbert.training.loop.batches import LengthBuckets, TrainingRows, tokenize_rows
from pocketbert.training.loop.objective import HardLabels
from pocketbert.training.loop.storage import BestWeights, find_checkpoint, mark_complete
from pocketbert.training.loop.trainer import ClassifierTrainer, train
from pocketbert.training.loop.validation import Validation
from tests.training.conftest import FAST, Taught
from tests.training.toy import LABELS, VOCABULARY, small_config


def rows_of(lengths: list[int]) -> TrainingRows:
    return TrainingRows([[2] * n for n in lengths], torch.zeros(len(lengths), dtype=torch.int64), 0)


def fresh(seed: int = 3) -> PocketBertClassifier:
    torch.manual_seed(seed)
    return new_classifier(encoder_dict(small_config("bert")), "mean", HeadParams(), LABELS)


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=300), batch=st.integers(1, 32), epoch=st.integers(0, 3)
)
def test_each_epoch_sees_each_row_once(lengths: list[int], batch: int, epoch: int) -> None:
    sampler = LengthBuckets(rows_of(lengths), batch, seed=1)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths)))
    assert order == list(sampler)


def test_batches_hold_rows_of_like_length_and_epochs_differ() -> None:
    lengths = np.random.default_rng(0).integers(3, 64, 1600).tolist()
    sampler = LengthBuckets(rows_of(lengths), 16, seed=1)
    order = list(sampler)
    padded = sum(16 * max(lengths[i] for i in order[k : k + 16]) for k in range(0, 1600, 16))
    assert padded < 1.1 * sum(lengths)
    sampler.set_epoch(1)
    assert order != list(sampler)


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40), size=st.integers(1, 16))
def test_predictions_keep_the_order_of_the_rows(lengths: list[int], size: int) -> None:
    model = fresh()
    generator = np.random.default_rng(sum(lengths))
    ids = [generator.integers(5, len(VOCABULARY), length).tolist() for length in lengths]
    logits = predict_logits(model, ids, 0, size)
    for index in {0, len(ids) // 2, len(ids) - 1}:
        alone = model.eval()(torch.tensor([ids[index]])).logits[0].detach().numpy()
        assert np.abs(alone - logits[index]).max() < 1e-5


def test_accuracy() -> None:
    logits = np.array([[2, 1], [-1, -2], [-1, 3]], dtype=np.float32)
    assert accuracy(logits, np.array([0, 1, 1])) == pytest.approx(2 / 3)
    assert accuracy(logits, np.array([[1, 1], [0, 1], [0, 1]], dtype=np.float32)) == pytest.approx(2 / 3)


@pytest.fixture
def trainer(taught: Taught, tmp_path: Path) -> ClassifierTrainer:
    encoder, params = TextEncoder(taught.teacher), OptimizerParams(epochs=1, **FAST)
    rows = tokenize_rows(taught.train, encoder, 32)
    validation = Validation.of(taught.valid, encoder, params)
    return ClassifierTrainer(fresh(), HardLabels(0.05), rows, validation, params, tmp_path, resumable=False)


def test_head_and_encoder_have_their_own_learning_rates_and_all_parameters_learn(trainer: ClassifierTrainer) -> None:
    groups = trainer.create_optimizer().param_groups
    head = {id(p) for p in trainer.model.head.parameters()}
    assert sum(len(group["params"]) for group in groups) == len(list(trainer.model.parameters()))
    for group in groups:
        for parameter in group["params"]:
            assert group["lr"] == (1e-2 if id(parameter) in head else 2e-3)
            assert group["weight_decay"] == (0.01 if parameter.ndim > 1 else 0.0)


class Poison(nn.Module):
    """From its third call on, turns one value into NaN; on the way there or on the way back."""

    def __init__(self, forward: bool) -> None:
        super().__init__()
        self.calls = 0
        self.in_forward = forward

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls < 3:
            return values
        if self.in_forward:
            return values * torch.where(torch.arange(values.shape[-1]) == 0, torch.nan, 1.0)
        return PoisonGradient.apply(values)


class PoisonGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.nan


@pytest.mark.parametrize(
    ("forward", "says"),
    [(True, r"step 3: the output of head\.activation_0"), (False, r"step 3: the gradient of head\.linear_0\.bias")],
)
def test_nan_stops_the_training_and_names_step_and_layer(trainer: ClassifierTrainer, forward: bool, says: str) -> None:
    trainer.model.head.activation_0 = Poison(forward)
    with pytest.raises(TrainingError, match=says):
        trainer.train()


def test_weights_that_overflow_are_named(trainer: ClassifierTrainer) -> None:
    with torch.no_grad():
        trainer.model.encoder.encoder.layer[1].output.dense.weight.fill_(1e38)
    with pytest.raises(TrainingError, match=r"step 1: the output of encoder\.encoder\.layer\.1\.output"):
        trainer.train()


@pytest.mark.parametrize("keep_best", [True, False])
def test_best_epoch_s_weights_are_kept(taught: Taught, tmp_path: Path, keep_best: bool) -> None:
    # A trained model that unlearns: its first epoch, before any step, is the best.
    from pocketbert.modeling.checkpoints import load_classifier

    model, encoder = load_classifier(taught.teacher), TextEncoder(taught.teacher)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    params = OptimizerParams(
        epochs=2, keep_best=keep_best, **(FAST | {"learning_rate": 0.3, "head_learning_rate": 0.3})
    )
    validation = Validation.of(taught.valid, encoder, params)
    rows = tokenize_rows(taught.train, encoder, 32)
    outcome = train(model, HardLabels(0.0), rows, validation, params, tmp_path, score_first=True)
    assert validation.score(model)[1] == pytest.approx(outcome.valid_accuracy)
    same = all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert same == keep_best
    assert outcome.epoch == (0.0 if keep_best else 2.0)
    assert not model.training


def test_same_seed_same_weights(taught: Taught, tmp_path: Path) -> None:
    encoder, params = TextEncoder(taught.teacher), OptimizerParams(epochs=1, **FAST)
    rows, validation = tokenize_rows(taught.train, encoder, 32), Validation.of(taught.valid, encoder, params)
    states = []
    for _ in range(2):
        model = fresh()
        train(model, HardLabels(0.05), rows, validation, params, tmp_path)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_curves(taught: Taught) -> None:
    curve = list(csv.DictReader((taught.plots / "curve.csv").open()))
    assert [float(row["epoch"]) for row in curve] == [1.0, 2.0, 3.0, 4.0]
    assert float(curve[-1]["train_loss"]) < float(curve[0]["train_loss"])
    assert float(curve[-1]["valid_accuracy"]) > 0.9
    losses = list(csv.DictReader((taught.plots / "loss.csv").open()))
    steps = [int(row["step"]) for row in losses]
    assert steps[-1] == 120
    assert all(a < b for a, b in itertools.pairwise(steps))
    assert max(float(row["learning_rate"]) for row in losses) == pytest.approx(2e-3, rel=0.1)
    assert float(losses[-1]["learning_rate"]) < 1e-4


def test_only_whole_checkpoints_are_found(tmp_path: Path) -> None:
    for step in (5, 20, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert find_checkpoint(tmp_path) is None
    assert not list(tmp_path.iterdir())
    for step in (20, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    mark_complete(tmp_path / "checkpoint-20")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-20"]
    (tmp_path / "checkpoint-100").mkdir()
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoint-20"
    assert not (tmp_path / "checkpoint-100").exists()


def test_best_weights_survive_in_their_folder(tmp_path: Path) -> None:
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    best = BestWeights(tmp_path)
    best.offer(other, 1.0, 0.5, loss=0.9)
    best.offer(model, 2.0, 0.5, loss=0.7)
    best.offer(other, 3.0, 0.5, loss=0.7)
    best.offer(other, 4.0, 0.4, loss=0.1)
    again = BestWeights(tmp_path)
    assert (again.epoch, again.accuracy, again.loss) == (2.0, 0.5, 0.7)
    again.restore(other)
    assert torch.equal(model.weight, other.weight)


@pytest.fixture
def no_room() -> Iterator[None]:
    """Files of at most 64 KiB: the one way of a failing write that needs no file system of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("writer", [save_file, torch.save])
def test_failed_write_is_told_as_the_os_error_behind_it(
    writer: Callable[[dict[str, torch.Tensor], str], None], no_room: None, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="File too large") as caught, storage_errors(tmp_path):
        writer({"weight": torch.zeros(1 << 20)}, str(tmp_path / "weights"))
    assert caught.value.errno == errno.EFBIG


def test_training_that_cannot_save_ends_in_an_os_error(taught: Taught, no_room: None, tmp_path: Path) -> None:
    model, encoder, params = fresh(), TextEncoder(taught.teacher), OptimizerParams(epochs=1, **FAST)
    rows, validation = tokenize_rows(taught.train, encoder, 32), Validation.of(taught.valid, encoder, params)
    with pytest.raises(OSError, match="File too large"):
        train(model, HardLabels(0.0), rows, validation, params, tmp_path)


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="of another kind"), storage_errors(tmp_path):
        raise RuntimeError("of another kind")

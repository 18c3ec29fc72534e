import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pocketbert.modeling.losses import UNLABELLED, attention_loss, hard_loss, hidden_loss, soft_loss


def softmax(values: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


logits = st.lists(st.floats(-8, 8), min_size=3, max_size=3)


@given(student=logits, teacher=logits, temperature=st.floats(0.5, 10))
def test_soft_loss_is_t_squared_times_kl(student: list[float], teacher: list[float], temperature: float) -> None:
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    expected = temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    got = soft_loss(torch.tensor([student]), torch.tensor([teacher]), temperature)
    assert got.shape == (1,)
    assert got.item() == pytest.approx(expected, rel=1e-3, abs=1e-3)


@given(values=logits, target=st.integers(0, 2), smoothing=st.floats(0, 0.5))
def test_hard_loss_is_smoothed_cross_entropy(values: list[float], target: int, smoothing: float) -> None:
    logs = [math.log(p) for p in softmax(values)]
    expected = -(1 - smoothing) * logs[target] - smoothing * sum(logs) / 3
    got = hard_loss(torch.tensor([values]), torch.tensor([target]), smoothing)
    assert got.item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_hard_loss_of_an_unlabelled_row_is_zero() -> None:
    single = hard_loss(torch.randn(2, 3), torch.tensor([UNLABELLED, 1]), 0.1)
    multi = hard_loss(torch.randn(2, 3), torch.tensor([[float(UNLABELLED)] * 3, [0.0, 1.0, 1.0]]), 0.1)
    for losses in (single, multi):
        assert losses[0] == 0.0
        assert losses[1] > 0.0


def test_multi_label_losses_are_binary_cross_entropy() -> None:
    student, teacher, temperature = [0.3, -1.2], [2.0, -0.5], 2.0

    def cross(target: float, logit: float) -> float:
        p = 1 / (1 + math.exp(-logit))
        return -target * math.log(p) - (1 - target) * math.log(1 - p)

    targets = [1 / (1 + math.exp(-t / temperature)) for t in teacher]
    soft = 4.0 * sum(cross(t, s / temperature) for t, s in zip(targets, student, strict=True)) / 2
    assert soft_loss(torch.tensor([student]), torch.tensor([teacher]), temperature, multi_label=True).item() == (
        pytest.approx(soft, rel=1e-5)
    )
    hard = (cross(0.95, student[0]) + cross(0.05, student[1])) / 2
    assert hard_loss(torch.tensor([student]), torch.tensor([[1.0, 0.0]]), 0.1).item() == pytest.approx(hard, rel=1e-5)


def test_hidden_loss_ignores_padding() -> None:
    student, teacher = torch.zeros(1, 3, 2), torch.tensor([[[1.0, 3.0], [2.0, 0.0], [100.0, 100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    # ((1 + 9) / 2 + (4 + 0) / 2) / 2
    assert hidden_loss(student, teacher, mask).tolist() == [3.5]


def test_attention_loss_is_kl_of_the_heads_mean() -> None:
    teacher = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]])
    student = torch.full((1, 1, 2, 2), 0.5)
    expected = (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2
    assert attention_loss(student, teacher, torch.ones(1, 2)).item() == pytest.approx(expected, rel=1e-5)
    assert attention_loss(teacher, teacher, torch.ones(1, 2)).item() == pytest.approx(0.0, abs=1e-7)

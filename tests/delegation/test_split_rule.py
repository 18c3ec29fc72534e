"""LiteRT's GPU keeps the old order of a SPLIT's parts where they are put together again, and only there."""

import pytest

from pocketbert.delegation.operators import Operator, Tensor
from pocketbert.delegation.profiles import PROFILES


@pytest.mark.parametrize(
    ("readers", "effects"),
    [
        (("CONCATENATION", "CONCATENATION"), ["wrong"]),
        (("ADD", "FULLY_CONNECTED", "CONCATENATION"), []),
        (("BATCH_MATMUL", "BATCH_MATMUL", "BATCH_MATMUL"), []),
    ],
)
def test_a_split_is_wrong_where_its_parts_are_joined_again(readers: tuple[str, ...], effects: list[str]) -> None:
    whole, part = Tensor("x", "float32", (1, 8, 64), False), Tensor("y", "float32", (1, 8, 32), False)
    axis = Tensor("axis", "int32", (), True)
    split = Operator(0, "SPLIT", 2, (axis, whole), (part, part), {}, (1, 0), (2, 3), readers)
    rules = PROFILES["litert-2.3"].rules
    assert [rule.effect for rule in rules if rule.applies(split)] == effects

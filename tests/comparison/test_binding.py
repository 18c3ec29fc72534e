import pytest

from pocketbert.comparison.binding import bind, other_orders
from pocketbert.errors import ProofError
from pocketbert.runtimes.base import TensorSpec


def specs(*names: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, "int32", (1, 8)) for name in names)


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (["input_ids", "attention_mask"], ("input_ids", "attention_mask")),
        (["serving_default_attention_mask:0", "serving_default_input_ids:0"], ("attention_mask", "input_ids")),
        (["input_mask", "segment_ids", "input_word_ids"], ("attention_mask", "token_type_ids", "input_ids")),
        (["input_ids:0", "input_mask:0", "segment_ids:0"], ("input_ids", "attention_mask", "token_type_ids")),
        (["ids", "position_ids", "mask"], ("input_ids", "position_ids", "attention_mask")),
    ],
)
def test_known_names_give_the_roles(names: list[str], roles: tuple[str, ...]) -> None:
    binding = bind(specs(*names))
    assert binding.roles == roles
    assert not binding.guessed


def test_unknown_names_are_taken_by_position_and_said() -> None:
    binding = bind(specs("arg0", "arg1", "arg2"))
    assert binding.roles == ("input_ids", "attention_mask", "token_type_ids")
    assert binding.assumed[1] == "input 1 ('arg1') is taken as attention_mask by its position"
    assert len(list(other_orders(binding))) == 5


def test_two_unknown_inputs_may_also_be_ids_and_types() -> None:
    assert set(other_orders(bind(specs("a", "b")))) == {
        ("attention_mask", "input_ids"), ("input_ids", "token_type_ids"), ("token_type_ids", "input_ids"),
    }  # fmt: skip


def test_what_is_no_row_of_tokens_is_refused() -> None:
    with pytest.raises(ProofError, match=r"input 'image' is float32\[1, 224, 224, 3\], not token ids"):
        bind((TensorSpec("image", "float32", (1, 224, 224, 3)),))
    with pytest.raises(ProofError, match="4 inputs of unknown roles"):
        bind(specs("a", "b", "c", "d"))

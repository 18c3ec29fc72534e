import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ParamsError
from pocketbert.modeling.assemble import encoder_dict, new_classifier
from pocketbert.modeling.classifier import PocketBertClassifier
from pocketbert.modeling.students import build_student, choose_layers, cut_student
from pocketbert.params import DistillParams, HeadParams
from tests.training.toy import LABELS, VOCABULARY, save_vocabulary, small_config

FAMILIES = ["bert", "roberta", "distilbert", "mobilebert"]


def teacher_of(family: str, **changes: Any) -> PocketBertClassifier:
    torch.manual_seed(3)
    config = encoder_dict(small_config(family, **changes))
    return new_classifier(config, "mean", HeadParams(), LABELS).eval()


@given(total=st.integers(1, 48), data=st.data())
def test_even_layers_keep_both_ends_and_are_evenly_spaced(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, total))
    layers = choose_layers(count, total)
    assert len(layers) == count
    assert layers[0] == 0
    gaps = {b - a for a, b in itertools.pairwise(layers)}
    assert all(gap >= 1 for gap in gaps)
    if count > 1:
        assert layers[-1] == total - 1
        assert max(gaps) - min(gaps) <= 1


def test_known_good_choices() -> None:
    assert choose_layers(3, 6) == [0, 2, 5]
    assert choose_layers(2, 6) == [0, 5]
    assert choose_layers([1, 4], 6) == [1, 4]


@pytest.mark.parametrize("layers", [7, [], [0, 6], [2, 1], [1, 1]])
def test_impossible_layers_are_refused(layers: int | list[int]) -> None:
    with pytest.raises(ParamsError, match=r"distill\.student\.layers"):
        choose_layers(layers, 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_cut_student_runs_the_teacher_s_own_layers(family: str) -> None:
    teacher = teacher_of(family)
    student = cut_student(teacher, [0, 1], "mean", HeadParams(), LABELS).eval()
    assert student.encoder.config.num_hidden_layers == 2
    ids = torch.randint(5, len(VOCABULARY), (3, 7))
    ours = student(ids, output_hidden_states=True).hidden_states
    theirs = teacher(ids, output_hidden_states=True).hidden_states
    assert len(ours) == 3
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=False))
    assert torch.equal(student.head.linear_1.weight, teacher.head.linear_1.weight)


def test_all_layers_kept_is_the_teacher() -> None:
    teacher = teacher_of("bert")
    student = cut_student(teacher, 3, "mean", HeadParams(), LABELS).eval()
    ids = torch.randint(5, len(VOCABULARY), (3, 7))
    assert torch.equal(student(ids).logits, teacher(ids).logits)


@pytest.mark.parametrize(
    "changed", [{"depth": 1}, {"width": 8}, {"activation": "tanh"}, {"pooling": "cls"}], ids=lambda c: next(iter(c))
)
def test_head_is_fresh_where_it_does_not_fit(changed: dict[str, Any]) -> None:
    teacher = teacher_of("bert")
    pooling = changed.get("pooling", "mean")
    head = HeadParams(**{key: value for key, value in changed.items() if key != "pooling"})
    student = cut_student(teacher, 2, pooling, head, LABELS)
    assert not torch.equal(student.head.linear_0.weight, teacher.head.linear_0.weight)


@pytest.mark.parametrize("family", ["bert", "distilbert", "mobilebert"])
def test_student_from_a_config_takes_its_vocabulary_from_the_tokenizer(family: str, tmp_path: Path) -> None:
    save_vocabulary(tmp_path / "teacher", [*VOCABULARY, "one", "more"])
    small_config("bert").save_pretrained(tmp_path / "teacher")
    config = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2}
    params = DistillParams(student={"kind": "config", "family": family, "config": config})
    (tmp_path / "out").mkdir()
    student, encoder = build_student(params, LABELS, teacher_of("bert"), tmp_path / "teacher", tmp_path / "out")
    assert student.encoder.get_input_embeddings().num_embeddings == len(VOCABULARY) + 2
    assert student.encoder.config.num_hidden_layers == 2
    assert encoder.encode(["one more"], 8)["input_ids"].max() == len(VOCABULARY) + 1
    assert TextEncoder(tmp_path / "out").pad_id == 0


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"num_hiden_layers": 2}, "num_hidden_layers"),
        ({"hidden_size": 30, "num_attention_heads": 4}, "makes no bert model"),
        ({"num_hidden_layers": 0}, "it has 0 layers"),
    ],
)
def test_bad_config_is_explained(config: dict[str, int], says: str, tmp_path: Path) -> None:
    save_vocabulary(tmp_path)
    small_config("bert").save_pretrained(tmp_path)
    params = DistillParams(student={"kind": "config", "family": "bert", "config": config})
    with pytest.raises(ParamsError, match=says):
        build_student(params, LABELS, teacher_of("bert"), tmp_path, tmp_path)

"""Which columns are taken for text and label."""

import pytest

from pocketbert.data.columns import Columns, choose_columns
from pocketbert.data.table import WHOLE, Table
from pocketbert.errors import DataError
from pocketbert.params import PrepareParams

TEXTS: list[object] = ["red kettle", "blue sofa", "old lamp", "new rug", "a pen", "two cups"]
IDS: list[object] = [0, 1, 1, 2, 2, 0]
NAMES: list[object] = ["k", "f", "f", "t", "t", "k"]


def choose(columns: dict[str, list[object]], **params: str) -> Columns:
    return choose_columns({WHOLE: Table(columns, "here.csv")}, PrepareParams.model_validate(params))


@pytest.mark.parametrize(
    "text", ["text", "Sentence", "utterance", "TITLE", "headline", "文本", "标题", "Texto", "título"]
)
@pytest.mark.parametrize(
    "label", ["label", "label id", "Label_ID", "intent", "category", "类别", "标签", "Categoría", "classe"]
)
def test_columns_are_found_by_name_in_several_languages(text: str, label: str) -> None:
    assert choose({"id": list(range(6)), text: TEXTS, label: NAMES}) == Columns(text, label)


@pytest.mark.parametrize("names", [("label_id", "label_name"), ("label", "label_text"), ("label", "category")])
def test_names_are_preferred_to_the_ids_of_the_same_classes(names: tuple[str, str]) -> None:
    assert choose({"text": TEXTS, names[0]: IDS, names[1]: NAMES}).label == names[1]
    assert choose({"text": TEXTS, names[1]: NAMES, names[0]: IDS}).label == names[1]


def test_columns_with_unknown_names_are_found_by_content() -> None:
    columns: dict[str, list[object]] = {
        "sku": ["A-1", "A-2", "A-3", "A-4", "A-5", "A-6"],
        "was": TEXTS,
        "ist": NAMES,
        "when": [f"2024-01-0{i}" for i in range(6)],
    }
    assert choose(columns) == Columns("was", "ist")


@pytest.mark.parametrize(
    ("columns", "clue"),
    [
        ({"a": TEXTS, "b": TEXTS[::-1], "label": NAMES}, "2 columns could be the text column: a, b"),
        ({"title": TEXTS, "headline": TEXTS, "label": NAMES}, "2 columns could be the text column"),
        (
            {"text": TEXTS, "intent": NAMES, "category": ["x", "x", "y", "y", "x", "y"]},
            "label column: intent, category",
        ),
        ({"text": TEXTS, "p": NAMES, "q": ["x", "x", "y", "y", "x", "y"]}, "label column: p, q"),
        ({"n": list(range(6)), "label": NAMES}, "no text column found (its columns: n, label)"),
        ({"text": TEXTS, "n": list(range(6))}, "no label column found (its columns: text, n)"),
    ],
)
def test_doubt_is_an_error_that_lists_the_columns(columns: dict[str, list[object]], clue: str) -> None:
    with pytest.raises(DataError) as caught:
        choose(columns)
    assert clue in str(caught.value)
    assert "Set prepare." in caught.value.fix


def test_parameters_win_and_a_wrong_one_is_named() -> None:
    columns: dict[str, list[object]] = {"text": TEXTS, "label": NAMES, "other": TEXTS[::-1], "group id": IDS}
    assert choose(columns, text_column="other", label_column="group_id") == Columns("other", "group id")
    with pytest.raises(DataError, match=r"no column 'lable'.*text, label, other.*prepare\.label_column: label"):
        choose(columns, label_column="lable")
    with pytest.raises(DataError, match="two different columns"):
        choose(columns, text_column="label", label_column="label")


def test_a_split_without_the_column_is_named() -> None:
    tables = {"train": Table({"text": TEXTS, "label": NAMES}, "train.csv"), "test": Table({"text": TEXTS}, "test.csv")}
    with pytest.raises(DataError, match=r"test\.csv has no column 'label'"):
        choose_columns(tables, PrepareParams())


def test_a_missing_header_line_is_noticed() -> None:
    with pytest.raises(DataError, match="no header line: its first line holds the label 'k'"):
        choose({"a red kettle": TEXTS, "k": NAMES})

"""prepare_dataset end to end on small files."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketbert.data.dataset import SPLITS, Split, read_labels, read_split
from pocketbert.data.prepare import prepare_dataset
from pocketbert.errors import DataError
from pocketbert.params import PrepareParams
from pocketbert.stage import Metrics

CLASSES = ("pear", "apple", "fig")


def write_csv(path: Path, rows: list[tuple[str, str]], header: str = "text,label") -> None:
    quoted = ['"{}","{}"'.format(*(cell.replace('"', '""') for cell in row)) for row in rows]
    path.write_text("\n".join([header, *quoted]) + "\n", encoding="utf-8")


def plain_rows(n: int = 30) -> list[tuple[str, str]]:
    return [(f"{CLASSES[i % 3]} number {i}", CLASSES[i % 3]) for i in range(n)]


def prepare(tmp_path: Path, source: Path, **params: object) -> tuple[Metrics, dict[str, Split]]:
    folder = tmp_path / "prepared"
    metrics = prepare_dataset(PrepareParams.model_validate({"path": source, **params}), folder)
    labels = read_labels(folder)
    return metrics, {split: read_split(folder / f"{split}.parquet", labels) for split in SPLITS}


def refusal(tmp_path: Path, source: Path, **params: object) -> str:
    with pytest.raises(DataError) as caught:
        prepare(tmp_path, source, **params)
    assert not (tmp_path / "prepared").exists(), "nothing may be half-written"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_file_is_cleaned_counted_and_split(tmp_path: Path) -> None:
    noise = [("", "fig"), ("  ", "fig"), ("no label", ""), ("minus one", "-1"), ("PEAR  number 0", "pear")]
    write_csv(tmp_path / "a.csv", plain_rows() + noise)
    metrics, splits = prepare(tmp_path, tmp_path / "a.csv", valid_fraction=0.1, test_fraction=0.2)
    assert metrics == {
        "rows_train": 21,
        "rows_valid": 3,
        "rows_test": 6,
        "classes": 3,
        "dropped_missing_text": 2,
        "dropped_missing_label": 2,
        "dropped_repeated": 1,
        "dropped_duplicate_in_train": 0,
        "dropped_duplicate_in_valid": 0,
        "conflicting_texts": 0,
    }
    labels = read_labels(tmp_path / "prepared")
    assert labels.names == ("apple", "fig", "pear")
    for split in splits.values():
        for text, target in zip(split.texts, split.targets, strict=True):
            assert text.split()[0].lower() == labels.names[target]
    report = json.loads((tmp_path / "prepared" / "report.json").read_text(encoding="utf-8"))
    assert report["columns"] == {"text": "text", "label": "label", "label_separator": None}
    assert report["rows_read"] == 35 and report["classes"]["fig"] == {"train": 7, "valid": 1, "test": 2}
    assert report["text_length_chars"]["train"]["max"] == len("apple number 28")


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", plain_rows())
    contents = []
    for seed in (1, 1, 2):
        prepare(tmp_path, tmp_path / "a.csv", seed=seed)
        contents.append([(tmp_path / "prepared" / f"{s}.parquet").read_bytes() for s in SPLITS])
    assert contents[0] == contents[1] != contents[2]


def test_texts_shared_by_splits_leave_train_then_valid_and_contradictions_are_reported(tmp_path: Path) -> None:
    write_csv(
        tmp_path / "train.csv", [*plain_rows(9), ("In Test", "fig"), ("in valid", "fig"), ("x", "pear"), ("x", "fig")]
    )
    write_csv(tmp_path / "dev.csv", [("in  VALID", "pear"), ("in both", "fig")])
    write_csv(tmp_path / "test.csv", [("intest", "fig"), ("In both", "fig")])
    metrics, splits = prepare(tmp_path, tmp_path)
    assert splits["train"].texts == [t for t, _ in plain_rows(9)] + ["x", "x"]
    assert (splits["valid"].texts, splits["test"].texts) == (["in VALID"], ["intest", "In both"])
    assert metrics["dropped_duplicate_in_train"] == 2 and metrics["dropped_duplicate_in_valid"] == 1
    report = json.loads((tmp_path / "prepared" / "report.json").read_text(encoding="utf-8"))
    assert report["conflicting_texts"] == {
        "count": 2,
        "examples": {"in valid": ["fig", "pear"], "x": ["pear", "fig"]},
    }


@pytest.mark.parametrize("given_split", ["valid", "test"])
def test_only_the_missing_split_is_drawn(tmp_path: Path, given_split: str) -> None:
    write_csv(tmp_path / "train.csv", plain_rows())
    write_csv(tmp_path / f"{given_split}.csv", [(f"{c} extra", c) for c in CLASSES])
    metrics, splits = prepare(tmp_path, tmp_path, valid_fraction=0.1, test_fraction=0.1)
    assert splits[given_split].texts == [f"{c} extra" for c in CLASSES]
    assert (metrics["rows_train"], len(splits["valid" if given_split == "test" else "test"])) == (27, 3)


def test_integer_labels_sort_by_number_and_gaps_written_as_floats_are_joined(tmp_path: Path) -> None:
    write_csv(
        tmp_path / "a.csv", [(f"t{i} x", f"{i % 11}.0" if i % 2 else str(i % 11)) for i in range(66)], "text,label id"
    )
    prepare(tmp_path, tmp_path / "a.csv")
    assert read_labels(tmp_path / "prepared").names == tuple(str(i) for i in range(11))


def test_class_names_of_parquet_keep_their_order_and_minus_one_is_dropped(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["zoo", "unused", "ant"])})
    columns = {"text": [f"t {i}" for i in range(21)], "label": [-1] + [0, 2] * 10}
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "a.parquet")
    metrics, _ = prepare(tmp_path, tmp_path / "a.parquet")
    assert read_labels(tmp_path / "prepared").names == ("zoo", "ant")
    assert metrics["dropped_missing_label"] == 1


@pytest.mark.parametrize("form", ["separator", "lists"])
def test_multi_label_targets(tmp_path: Path, form: str) -> None:
    labels = [["b"], ["a", "b"], ["c", "a"]] * 10
    path = tmp_path / ("a.csv" if form == "separator" else "a.jsonl")
    if form == "separator":
        write_csv(path, [(f"{i} t", " | ".join(found)) for i, found in enumerate(labels)])
    else:
        path.write_text("\n".join(json.dumps({"text": f"{i} t", "label": f}) for i, f in enumerate(labels)))
    _, splits = prepare(tmp_path, path, label_separator="|" if form == "separator" else None)
    assert read_labels(tmp_path / "prepared").problem_type == "multi_label"
    for split in splits.values():
        for text, target in zip(split.texts, split.targets, strict=True):
            wanted = labels[int(text.split()[0])]
            np.testing.assert_array_equal(target, [float(c in wanted) for c in "abc"])


@pytest.mark.parametrize(
    ("rows", "clue"),
    [
        ([(f"t{i} x", "only") for i in range(9)], "a single class (only)"),
        ([*plain_rows(), ("rare one", "kiwi"), ("rare two", "kiwi")], "'kiwi' has 2, where each needs 3"),
        ([("some text", ""), ("more text", "")], "no row with both a text"),
    ],
)
def test_data_that_cannot_be_used(tmp_path: Path, rows: list[tuple[str, str]], clue: str) -> None:
    write_csv(tmp_path / "a.csv", rows)
    assert clue in refusal(tmp_path, tmp_path / "a.csv")


def test_labels_of_test_that_train_lacks(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", plain_rows())
    write_csv(tmp_path / "test.csv", [("kiwi", "kiwi"), ("pear", "Pear")])
    assert "labels in test that train does not have: Pear, kiwi" in refusal(tmp_path, tmp_path)


def test_a_split_whose_texts_are_all_elsewhere(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", plain_rows())
    write_csv(tmp_path / "valid.csv", [("a", "fig")])
    write_csv(tmp_path / "test.csv", [("A", "fig")])
    assert "no row of valid is left" in refusal(tmp_path, tmp_path)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=8), st.sampled_from(["", "-1", *CLASSES])), max_size=40))
def test_any_table_is_either_prepared_without_leaks_or_refused(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    tmp_path = tmp_path_factory.mktemp("any")
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": t, "label": c}) for t, c in rows))
    try:
        metrics, splits = prepare(tmp_path, path)
    except DataError as error:
        assert "\n" not in str(error)
        return
    keys = {s: {"".join(t.split()).casefold() for t in split.texts} for s, split in splits.items()}
    assert not keys["train"] & keys["test"] and not keys["train"] & keys["valid"] and not keys["valid"] & keys["test"]
    assert all(text.strip() for split in splits.values() for text in split.texts)
    counts = {name: value for name, value in metrics.items() if name.startswith(("rows_", "dropped_"))}
    assert sum(int(str(n)) for n in counts.values()) == len(rows)


@pytest.mark.dataset
def test_real_data_sets(tmp_path: Path, datasets: Path) -> None:
    metrics, _ = prepare(tmp_path, datasets / "clinc150")
    assert (metrics["classes"], metrics["rows_test"], metrics["rows_valid"], metrics["rows_train"]) == (
        150,
        4500,
        2998,
        14989,
    )
    metrics, splits = prepare(tmp_path, datasets / "thucnews_titles")
    assert metrics["classes"] == 10 and splits["test"].texts[0].startswith("词汇阅读是关键 08年")

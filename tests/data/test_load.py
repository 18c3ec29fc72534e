"""Reading files, folders and hub data sets; every bad input is one clear line."""

import json
import shutil
from pathlib import Path

import pytest

from pocketbert.data.load import load_tables
from pocketbert.data.table import WHOLE, Table
from pocketbert.data.tabular import read_delimited
from pocketbert.errors import DataError
from pocketbert.params import HubDataset, PrepareParams

ROWS = [("你好，世界", "a"), ('say "hi", now', "b"), ("two\nlines", "a")]


def read(path: Path) -> dict[str, Table]:
    return load_tables(PrepareParams(path=path))


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


CSV = 'text,label\n"你好，世界",a\n"say ""hi"", now",b\n"two\nlines",a\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV.encode()),
        ("a.csv", b"\xef\xbb\xbf" + CSV.encode()),
        ("a.csv", CSV.replace("\n", "\r\n").replace("two\r\n", "two\n").encode("utf-16")),
        ("a.csv", CSV.replace(",", ";").replace('hi"";', 'hi"",').encode()),
        ("a.tsv", CSV.replace(",b", "\tb").replace(",a", "\ta").replace("text,", "text\t").encode()),
        ("a.jsonl", "\n".join(json.dumps({"text": t, "label": c}, ensure_ascii=False) for t, c in ROWS).encode()),
        ("a.json", json.dumps([{"text": t, "label": c} for t, c in ROWS]).encode()),
    ],
)
def test_reads_the_same_rows_from_every_text_format(tmp_path: Path, name: str, content: bytes) -> None:
    table = read(write(tmp_path / name, content))[WHOLE]
    assert list(zip(table.columns["text"], table.columns["label"], strict=True)) == ROWS


def test_reads_parquet_with_the_class_names_that_datasets_stores(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    Dataset.from_dict({"text": ["x", "y"], "label": [1, 0]}, features=features).to_parquet(tmp_path / "a.parquet")
    table = read(tmp_path / "a.parquet")[WHOLE]
    assert (table.columns["label"], table.class_names) == ([1, 0], {"label": ["no", "yes"]})


def test_tsv_with_stray_quotes_is_read_literally(tmp_path: Path) -> None:
    table = read_delimited(write(tmp_path / "a.tsv", 'text\tlabel\n"so" he said\tx\n5" pipe\ty\n'))
    assert table.columns["text"] == ['"so" he said', '5" pipe']


def test_folder_names_are_matched_and_other_files_ignored(tmp_path: Path) -> None:
    for name in ("train.csv", "Dev.csv", "test.tsv", "oos_test.csv", "SOURCE.md"):
        separator = "\t" if name.endswith("tsv") else ","
        write(tmp_path / name, f"text{separator}label\n{name}{separator}a\n")
    tables = read(tmp_path)
    assert {split: table.columns["text"] for split, table in tables.items()} == {
        "train": ["train.csv"],
        "valid": ["Dev.csv"],
        "test": ["test.tsv"],
    }


def test_shards_of_a_split_are_joined(tmp_path: Path) -> None:
    for i in range(2):
        write(tmp_path / f"train-0000{i}-of-00002.csv", f"text,label\nt{i},a\n")
    assert read(tmp_path)["train"].columns["text"] == ["t0", "t1"]


@pytest.mark.parametrize(
    ("name", "content", "clue"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"\n\n", "empty"),
        ("a.csv", b"text,label\n", "no rows"),
        ("a.csv", b"PK\x03\x04\x00\x00\xff\xfe\x00", "binary"),
        ("a.csv", b"\x89PNG\r\n\x00\x1a", "binary"),
        ("a.csv", b"text,label\nfine,a\ncaf\xe9,b\n", "line 3"),
        ("a.csv", b"text,label\nfine,a\none, two,b\n", "line 3: 3 fields where the header has 2"),
        ("a.csv", b'text,label\nfine,a\n"open,b\nmore,c\n', "line 3"),
        ("a.csv", b'text,label\n"a" b,c\n', "line 2"),
        ("a.csv", b"text,text\na,b\n", "two columns named 'text'"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2"),
        ("a.jsonl", b'{"text": "a"}\n[1]\n', "line 2"),
        ("a.parquet", b"PAR1 no more", "Parquet"),
        ("a.xlsx", b"PK", "unknown ending '.xlsx'"),
    ],
)
def test_bad_file_is_one_line_with_the_cause(tmp_path: Path, name: str, content: bytes, clue: str) -> None:
    message = refusal(write(tmp_path / name, content))
    assert clue in message and name in message


def test_missing_file_and_folder_without_train(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.csv")
    write(tmp_path / "test.csv", "text,label\na,b\n")
    assert "no train file (it holds test.csv)" in refusal(tmp_path)
    write(tmp_path / "train.csv", "text,label\na,b\n")
    write(tmp_path / "train.tsv", "text\tlabel\na\tb\n")
    assert "train.csv, train.tsv" in refusal(tmp_path)


def hub_folder(folder: Path) -> Path:
    """A data set in the hub's own layout: Parquet files with ClassLabel features."""
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["zebra", "ant"])})
    folder.mkdir()
    for split in ("train", "validation", "test"):
        rows = Dataset.from_dict({"text": [f"{split} z", f"{split} a"], "label": [0, 1]}, features=features)
        rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_hub_data_set_from_a_folder_and_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = hub_folder(tmp_path / "animals")
    tables = load_tables(PrepareParams(hub=HubDataset(name=str(folder))))
    assert list(tables) == ["train", "valid", "test"]
    assert tables["valid"].columns["text"] == ["validation z", "validation a"]
    assert tables["train"].class_names == {"label": ["zebra", "ant"]}

    # What the hub's data set someone/animals would have left in the cache.
    shutil.copytree(tmp_path / "cache" / "animals", tmp_path / "cache" / "someone___animals")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    cached = load_tables(PrepareParams(hub=HubDataset(name="someone/animals")))
    assert {s: t.columns for s, t in cached.items()} == {s: t.columns for s, t in tables.items()}


def test_unknown_hub_data_set_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"hub data set 'nobody/nothing' cannot be loaded.*prepare\.hub") as caught:
        load_tables(PrepareParams(hub=HubDataset(name="nobody/nothing")))
    assert "\n" not in str(caught.value)

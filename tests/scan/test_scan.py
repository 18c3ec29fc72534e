from pathlib import Path

import pytest

from pocketbert.errors import CheckpointError, ParamsError
from pocketbert.scan.scan import scan_file
from pocketbert.scan.text import as_text
from tests.comparison.conftest import bag_onnx
from tests.devices.conftest import save_tokenizer


def test_a_file_without_names_or_signatures_is_run_in_an_order_that_runs(
    foreign_tflite: Path, rows_csv: Path, tmp_path: Path
) -> None:
    save_tokenizer(tmp_path)
    found = scan_file(foreign_tflite, rows_csv, tokenizer=tmp_path, rows=3)
    assert found.safe
    assert "inputs are taken as attention_mask, input_ids" in found.said[-1]
    assert {entry["cause"] for entry in found.ranges.widest} >= {"embeddings", "pooling sums"}


def test_a_foreign_onnx_file_is_scanned_by_its_own_names(rows_csv: Path, tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    found = scan_file(bag_onnx(tmp_path / "bag.onnx"), rows_csv, rows=3)
    assert "safe in fp16 on these rows" in as_text(found)
    assert found.ranges.rows["longest"] == 3


def test_what_is_missing_is_named(rows_csv: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.onnx does not exist"):
        scan_file(tmp_path / "gone.onnx", rows_csv)
    with pytest.raises(ParamsError, match=r"no tokenizer\.json"):
        scan_file(bag_onnx(tmp_path / "bag.onnx"), rows_csv)

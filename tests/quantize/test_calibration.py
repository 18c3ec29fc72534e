import shutil
from collections import Counter
from math import ceil, floor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.data.dataset import Split
from pocketbert.errors import CheckpointError, ProofError
from pocketbert.params import CalibrationParams
from pocketbert.quantize.calibration import check_calibration, draw_rows, stratified_rows

TARGETS = st.lists(st.integers(0, 9), min_size=1, max_size=300).map(np.array)


@given(TARGETS, st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_each_class_gets_its_share_rounded_down_or_up(targets: np.ndarray, rows: int, seed: int) -> None:
    drawn = stratified_rows(targets, rows, seed)
    assert len(set(drawn.tolist())) == len(drawn) == min(rows, len(targets))
    counts = Counter(targets[drawn].tolist())
    for name, total in Counter(targets.tolist()).items():
        share = total * len(drawn) / len(targets)
        assert floor(share - 1e-9) <= counts[name] <= ceil(share + 1e-9)


@given(TARGETS, st.integers(0, 100))
def test_the_seed_decides(targets: np.ndarray, seed: int) -> None:
    np.testing.assert_array_equal(stratified_rows(targets, 5, seed), stratified_rows(targets, 5, seed))


def test_another_seed_draws_other_rows() -> None:
    targets = np.zeros(1000, np.int64)
    assert stratified_rows(targets, 20, 1).tolist() != stratified_rows(targets, 20, 2).tolist()


def test_combinations_of_labels_are_strata() -> None:
    targets = np.repeat(np.array([[1, 0], [1, 1]], np.float32), [30, 10], axis=0)
    drawn = stratified_rows(targets, 4, 0)
    assert targets[drawn].sum(axis=0).tolist() == [4, 1]


def test_drawn_rows_are_padded_and_identified(tflite: Artifact, toy_split: Split) -> None:
    rows = draw_rows(CalibrationParams(rows=6, seed=3), toy_split, tflite.folder, 16)
    again = draw_rows(CalibrationParams(rows=6, seed=3), toy_split, tflite.folder, 16)
    other = draw_rows(CalibrationParams(rows=6, seed=4), toy_split, tflite.folder, 16)
    assert {values.shape for values in rows.inputs.values()} == {(6, 16)}
    assert rows.digest == again.digest != other.digest
    assert Counter(toy_split.targets[rows.indices].tolist()) == {0: 2, 1: 2, 2: 2}


def test_rows_that_the_training_data_no_longer_gives_are_one_clear_line(
    quantized: dict[str, Artifact], toy_split: Split, tmp_path: Path
) -> None:
    artifacts = list(quantized.values())
    check_calibration(artifacts, toy_split)
    changed = Split([f"{text} indeed" for text in toy_split.texts], toy_split.targets)
    with pytest.raises(ProofError) as caught:
        check_calibration(artifacts, changed)
    said = str(caught.value)
    assert said.startswith("onnx-static_int8 was calibrated on rows that the training data no longer gives")
    assert "\n" not in said
    check_calibration([a for a in artifacts if "static" not in a.name], changed)


def test_a_damaged_record_is_named(quantized: dict[str, Artifact], toy_split: Split, tmp_path: Path) -> None:
    artifact = quantized["tflite-static_wi8_ai8"]
    folder = tmp_path / "q"
    shutil.copytree(artifact.folder, folder)
    (folder / "recipe.json").write_text('{"calibration": {"rows": 3}}')
    with pytest.raises(CheckpointError, match=r"recipe\.json is damaged"):
        check_calibration([read_artifact(folder)], toy_split)

import json
import shutil
from pathlib import Path

import numpy as np
import onnx as onnx_format
import pytest

from pocketbert.artifacts import Artifact
from pocketbert.comparison.compare import Comparison, compare_files
from pocketbert.comparison.text import as_text
from pocketbert.errors import CheckpointError, DataError, ParamsError, PocketBertError, ProofError
from tests.comparison.conftest import bag_onnx
from tests.devices.conftest import toy_texts

ROWS = 24


def compare(a: Path, b: Path, data: Path, tokenizer: Path | None = None) -> Comparison:
    return compare_files(a, b, data, rows=ROWS, tokenizer=tokenizer)


def test_a_model_s_own_formats_agree(student: Artifact, onnx: Artifact, tflite: Artifact, rows_csv: Path) -> None:
    for other in (onnx.folder, tflite.folder, tflite.model_path):
        comparison = compare(student.folder, other, rows_csv)
        comparison.check(1e-4)
        assert comparison.agreement.clear_rows == 1.0
        assert set(comparison.hard_rows) == {"holes", "shortened", "segments", "padding"}
        assert not [line for line in comparison.said if "WARNING" in line]
        assert json.loads(json.dumps(comparison.as_dict()))["judged_rel_diff"] < 1e-4


def test_the_figures_are_those_of_the_runtimes(student: Artifact, onnx: Artifact, rows_csv: Path) -> None:
    from pocketbert.data.tokenize import TextEncoder
    from pocketbert.runtimes.engines import open_runtime

    changed = onnx.folder.parent / "noisy.onnx"
    model = onnx_format.load(onnx.model_path)
    head = next(t for t in model.graph.initializer if t.name == "head.linear_1.weight")
    weights = onnx_format.numpy_helper.to_array(head) + np.float32(0.05)
    head.CopyFrom(onnx_format.numpy_helper.from_array(weights, head.name))
    onnx_format.save(model, changed)
    comparison = compare_files(student.folder, changed, rows_csv, rows=len(toy_texts()))

    batch = TextEncoder(student.folder).encode(toy_texts(), 64)
    shutil.copytree(onnx.folder, onnx.folder.parent / "noisy", dirs_exist_ok=True)
    shutil.copy(changed, onnx.folder.parent / "noisy/model.onnx")
    a, b = (open_runtime(folder).run(batch) for folder in (student.folder, onnx.folder.parent / "noisy"))
    gaps = np.abs(a - b).max(axis=1)
    assert comparison.logits.max_abs_diff == pytest.approx(gaps.max(), rel=1e-3)
    assert comparison.logits.spread == pytest.approx(a.std(axis=0).mean(), rel=1e-3)
    worst = comparison.worst[0]
    assert worst.text == toy_texts()[worst.number - 1]
    assert worst.max_abs_diff == pytest.approx(gaps[worst.number - 1], rel=1e-3)
    with pytest.raises(ProofError, match=rf"over the limit of 0.0001 .*worst at row {worst.number}\)"):
        comparison.check(1e-4)


def test_a_foreign_file_without_signatures_or_names_is_run_by_the_order_that_fits(
    foreign_tflite: Path, rows_csv: Path, tokenizer: Path, tmp_path: Path
) -> None:
    reference = bag_onnx(tmp_path / "bag.onnx")
    comparison = compare(reference, foreign_tflite, rows_csv, tokenizer)
    comparison.check(1e-4)
    text = as_text(comparison)
    assert "foreign.tflite: its inputs are taken as token_type_ids, input_ids, attention_mask instead" in text
    assert "is taken as the logits" in text
    assert "int64 inputs" in text
    compare(foreign_tflite, reference, rows_csv, tokenizer).check(1e-4)


def test_odd_names_of_other_makers_are_known(rows_csv: Path, tokenizer: Path, tmp_path: Path) -> None:
    reference = bag_onnx(tmp_path / "bag.onnx")
    other = bag_onnx(tmp_path / "other.onnx", names=["input_word_ids", "input_mask", "segment_ids"])
    comparison = compare(reference, other, rows_csv, tokenizer)
    comparison.check(1e-6)
    assert any("input 'input_mask' is taken as attention_mask by its name" in line for line in comparison.said)


def test_swapped_inputs_of_equal_shape_are_noticed(rows_csv: Path, tokenizer: Path, tmp_path: Path) -> None:
    reference = bag_onnx(tmp_path / "bag.onnx")
    swapped = bag_onnx(tmp_path / "swapped.onnx", mask="types", types="mask")
    # A mask of zeros makes every row alike: the cause is named, not the symptom alone.
    with pytest.raises(ProofError, match="look swapped: they fit as input_ids, token_type_ids, attention_mask"):
        compare(reference, swapped, rows_csv, tokenizer)


def test_swapped_names_of_a_trained_model_are_noticed(student: Artifact, onnx: Artifact, rows_csv: Path) -> None:
    model = onnx_format.load(onnx.model_path)
    swap = {"attention_mask": "token_type_ids", "token_type_ids": "attention_mask"}
    for node in model.graph.node:
        node.input[:] = [swap.get(name, name) for name in node.input]
    onnx_format.save(model, onnx.folder.parent / "swapped.onnx")
    with pytest.raises(ProofError, match="look swapped: they fit as input_ids, token_type_ids, attention_mask"):
        compare(student.folder, onnx.folder.parent / "swapped.onnx", rows_csv).check(1e-4)


def test_a_constant_candidate_proves_nothing(student: Artifact, onnx: Artifact, rows_csv: Path) -> None:
    model = onnx_format.load(onnx.model_path)
    for tensor in model.graph.initializer:
        if tensor.name == "head.linear_1.weight":
            zeros = np.zeros(tuple(tensor.dims), dtype=np.float32)
            tensor.CopyFrom(onnx_format.numpy_helper.from_array(zeros, tensor.name))
    onnx_format.save(model, onnx.folder.parent / "constant.onnx")
    with pytest.raises(ProofError, match=r"the candidate gives the same logits for every row .*constant.onnx"):
        compare(student.folder, onnx.folder.parent / "constant.onnx", rows_csv)


def test_probabilities_are_compared_with_probabilities(
    student: Artifact, onnx: Artifact, rows_csv: Path, tokenizer: Path, tmp_path: Path
) -> None:
    model = onnx_format.load(onnx.model_path)
    model.graph.node.append(onnx_format.helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    model.graph.output[0].name = "probabilities"
    onnx_format.save(model, tmp_path / "softmax.onnx")
    comparison = compare(student.folder, tmp_path / "softmax.onnx", rows_csv)
    comparison.check(1e-4)
    assert any("taken as probabilities" in line for line in comparison.said)


def test_damaged_files_are_named(student: Artifact, tflite: Artifact, rows_csv: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.tflite"
    short.write_bytes(tflite.model_path.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match=r"short.tflite is damaged"):
        compare(student.folder, short, rows_csv)


def test_what_is_missing_is_named(student: Artifact, rows_csv: Path, tokenizer: Path, tmp_path: Path) -> None:
    bag = bag_onnx(tmp_path / "bag.onnx")
    with pytest.raises(ParamsError, match=r"no tokenizer.json .* with --tokenizer"):
        compare(bag, bag, rows_csv)
    with pytest.raises(DataError, match=r"absent\.csv does not exist"):
        compare(bag, bag, tmp_path / "absent.csv", tokenizer)
    with pytest.raises(DataError, match="has no column 'body'"):
        compare_files(bag, bag, rows_csv, tokenizer=tokenizer, text_column="body")
    with pytest.raises(PocketBertError, match="does not exist"):
        compare(bag, tmp_path / "absent", rows_csv, tokenizer)

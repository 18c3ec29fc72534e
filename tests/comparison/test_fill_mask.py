"""A masked LM with the stock mask loses its guesses in a naive fp16 cast; with the mask set it keeps them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pocketbert.cli import app
from pocketbert.comparison.fill_mask import compare_masked
from pocketbert.errors import ParamsError, ProofError
from pocketbert.export.single import export_file
from pocketbert.scan.scan import scan_file
from tests.export.masked_lm import cast_naively, topic_lm, topic_texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """stock.onnx and set.onnx, each with its naive cast, and rows.csv."""
    root = tmp_path_factory.mktemp("masked")
    for name, mask in (("stock", None), ("set", -1e4)):
        export_file(topic_lm(), root / f"{name}.onnx", "fill-mask", mask, 17)
        cast_naively(root / f"{name}.onnx", root / f"{name}16.onnx")
    (root / "rows.csv").write_text("text\n" + "\n".join(topic_texts(24, 77)) + "\n")
    return root


def test_the_export_is_the_torch_model(folder: Path) -> None:
    found = compare_masked(topic_lm(), folder / "stock.onnx", folder / "rows.csv")
    assert (found.top1_agreement, found.top5_agreement, found.differing) == (1.0, 1.0, ())
    assert found.judged < 1e-4
    assert found.rows == found.masked == 24
    # Guesses that mean something: the model tells the topics apart.
    assert found.spread > 0.5
    found.check(1e-4)
    with pytest.raises(ProofError, match="over the limit of 0 "):
        found.check(0.0)


def test_our_own_tflite_graph_is_the_torch_model(tmp_path: Path, folder: Path) -> None:
    said = export_file(topic_lm(), tmp_path / "lm.tflite", "auto", -1e4, sequence_length=16)
    assert "lm.tflite: fill-mask, 16 tokens, the mask -10000" in said
    found = compare_masked(topic_lm(), tmp_path / "lm.tflite", folder / "rows.csv", rows=12)
    assert (found.top5_agreement, found.rows) == (1.0, 12)
    found.check(1e-4)


def test_the_stock_mask_cast_naively_loses_the_guesses_and_is_named_before_and_after(folder: Path) -> None:
    before = scan_file(folder / "stock.onnx", folder / "rows.csv", rows=4)
    assert [(f.cause, f.problem) for f in before.ranges.roots] == [("mask constant", "overflow")]
    mask = before.ranges.roots[0].tensor
    with pytest.raises(ProofError, match=rf"stock16.onnx gives NaN.*: the mask constant {mask} is -inf") as caught:
        compare_masked(folder / "stock.onnx", folder / "stock16.onnx", folder / "rows.csv")
    assert "a mask of -1e4" in caught.value.fix
    after = scan_file(folder / "stock16.onnx", folder / "rows.csv", rows=4)
    assert after.nonfinite is not None
    assert (after.nonfinite.cause, after.nonfinite.tensor) == ("mask constant", mask)


def test_with_the_mask_set_the_same_cast_keeps_all_five_guesses(folder: Path) -> None:
    assert scan_file(folder / "set.onnx", folder / "rows.csv", rows=4).safe
    found = compare_masked(folder / "set.onnx", folder / "set16.onnx", folder / "rows.csv")
    assert (found.top1_agreement, found.top5_agreement) == (1.0, 1.0)
    assert found.max_rel_diff < 0.05
    assert found.hard_rows["padding"] is not None


def test_another_model_gives_other_guesses(folder: Path, tmp_path: Path) -> None:
    import numpy as np
    import onnx

    model = onnx.load(folder / "set.onnx")
    (bias,) = (t for t in model.graph.initializer if t.name == "cls.predictions.bias")
    changed = onnx.numpy_helper.to_array(bias) + np.float32(20) * (np.arange(65) == 64)
    bias.CopyFrom(onnx.numpy_helper.from_array(changed, bias.name))
    onnx.save(model, tmp_path / "other.onnx")
    found = compare_masked(folder / "set.onnx", tmp_path / "other.onnx", folder / "rows.csv", tokenizer=folder)
    assert (found.top1_agreement, found.top5_agreement) == (0.0, 0.0)
    assert found.differing[0].top_b[0] == "w59"
    assert found.max_abs_diff == pytest.approx(20, rel=1e-3)


def test_the_command_recognises_the_task_and_its_exit_codes(folder: Path) -> None:
    rows = ["--data", str(folder / "rows.csv"), "--rows", "6"]
    done = CliRunner().invoke(app, ["compare", str(folder / "set.onnx"), str(folder / "set16.onnx"), *rows])
    assert done.exit_code == 0, done.output
    assert "same five guesses 1.0000 of the masked words" in done.output
    machine = ["compare", str(topic_lm()), str(folder / "set.onnx"), *rows, "--json", "--task", "fill-mask"]
    assert json.loads(CliRunner().invoke(app, machine).stdout)["task"] == "fill-mask"
    failed = CliRunner().invoke(
        app, ["compare", str(folder / "set.onnx"), str(folder / "set16.onnx"), *rows, "--task", "x"]
    )
    assert isinstance(failed.exception, ParamsError)


def test_scan_ends_in_1_where_fp16_is_unsafe(folder: Path) -> None:
    rows = ["--data", str(folder / "rows.csv"), "--rows", "2"]
    unsafe = CliRunner().invoke(app, ["scan", str(folder / "stock16.onnx"), *rows])
    assert unsafe.exit_code == 1
    assert "UNSAFE not finite: /bert/Constant" in unsafe.output
    assert "BROKEN the mask constant" in unsafe.output
    torch_folder = CliRunner().invoke(app, ["scan", str(topic_lm()), *rows])
    assert torch_folder.exit_code == 1
    assert "its stock mask kept" in torch_folder.output
    safe = CliRunner().invoke(app, ["scan", str(folder / "set.onnx"), *rows, "--json"])
    assert safe.exit_code == 0
    found = json.loads(safe.stdout)
    assert found["safe"]
    assert {"longest", "padding"} <= set(found["rows"])


def test_compare_names_a_mask_of_nan_in_a_classifier(tmp_path: Path) -> None:
    from tests.export.trained import exported, make_texts
    from tests.numerics.edited import with_mask

    (tmp_path / "rows.csv").write_text("text\n" + "\n".join(make_texts(4, seed=3)[0]) + "\n")
    broken = with_mask(exported("bert").tflite, tmp_path / "broken", float("nan"))
    command = ["compare", str(exported("bert").onnx), str(broken.folder), "--data", str(tmp_path / "rows.csv")]
    error = CliRunner().invoke(app, command).exception
    assert isinstance(error, ProofError)
    assert "the candidate gives NaN or infinite logits" in error.cause
    assert "the mask constant mul/y" in error.cause

"""What the GPU does with quantized files: the rules' reasons are the runtime's, and the hints are cures."""

from pathlib import Path

import numpy as np
import pytest

from pocketbert.artifacts import read_artifact
from pocketbert.delegation.analyze import Delegation, analyze, find_profile
from pocketbert.delegation.operators import read_operators
from pocketbert.delegation.rows import real_rows
from pocketbert.export.token_axis import restore_token_axis
from pocketbert.quantize.calibration import CalibrationRows
from pocketbert.quantize.options import Fp16Options, RecipeOptions, TfliteDynamicInt4Options, TfliteStaticOptions
from pocketbert.quantize.recipes_tflite import (
    dynamic_wi4_afp32,
    dynamic_wi8_afp32,
    fp16,
    static_wi8_ai8,
    weight_only_wi8_afp32,
)
from tests.delegation.graphs import convert, rows_beside_a_constant
from tests.export.trained import MAIN_FAMILIES, exported, make_texts

LITERT = find_profile("litert-2.3")


def source() -> Path:
    return exported("bert").tflite / "model.tflite"


def ask(path: Path, **options: object) -> Delegation:
    return analyze(path, LITERT, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_dynamic_int8_is_whole_and_right_against_the_same_weights_in_floating_point(
    family: str, gpu: str, tmp_path: Path
) -> None:
    """The CPU rounds the activations at every run, the GPU does not: they differ, and the GPU is right."""
    dynamic_wi8_afp32(exported(family).tflite / "model.tflite", tmp_path / "model.tflite", RecipeOptions(), None)
    found = ask(tmp_path / "model.tflite")
    (measured,) = found.measurements
    assert found.whole and found.agreed
    assert measured.dequantized
    assert measured.rel_diff is not None and measured.rel_diff < 1e-5


def test_static_int8_is_whole_and_no_further_off_than_the_cpu(gpu: str, tmp_path: Path) -> None:
    artifact = read_artifact(exported("bert").tflite)
    texts, _ = make_texts(64, seed=5)
    rows = real_rows(artifact, texts, 32)
    calibration = CalibrationRows(np.arange(32), dict(rows), "made up")
    static_wi8_ai8(source(), tmp_path / "model.tflite", TfliteStaticOptions(), calibration)
    found = ask(tmp_path / "model.tflite", rows={name: values[::16] for name, values in rows.items()}, timeout_s=400)
    (measured,) = found.measurements
    assert found.agreed and found.prediction.whole
    assert measured.placement is not None and measured.placement.delegated == measured.placement.total
    assert measured.right and measured.limit is not None and measured.limit > 1e-3


def test_an_fp16_table_is_refused_and_int8_cures_it(gpu: str, tmp_path: Path) -> None:
    refused, cured = tmp_path / "refused.tflite", tmp_path / "cured.tflite"
    fp16(source(), refused, Fp16Options(), None)
    found = ask(refused)
    assert not found.whole and found.agreed
    assert {f.operator for f in found.prediction.refused} == {"EMBEDDING_LOOKUP", "DEQUANTIZE"}
    assert "embeddings: int8" in found.prediction.refused[0].hint
    (measured,) = found.measurements
    assert measured.placement is not None
    assert any(line.startswith("EMBEDDING_LOOKUP:") for line in measured.placement.refused)
    fp16(source(), cured, Fp16Options(embeddings="int8"), None)
    assert ask(cured).whole


@pytest.mark.parametrize("kind", ["table", "weights", "dequantized"])
def test_what_is_fatal_by_the_rules_kills_the_run(gpu: str, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.tflite"
    if kind == "table":
        dynamic_wi4_afp32(source(), path, TfliteDynamicInt4Options(block_size=0), None)
    elif kind == "weights":
        # The toy models' widths cannot be cut into blocks.
        path.write_bytes(restore_token_axis(rows_beside_a_constant())[0])
        dynamic_wi4_afp32(path, path, TfliteDynamicInt4Options(embeddings="int8", block_size=32), None)
    else:
        weight_only_wi8_afp32(source(), path, RecipeOptions(), None)
    found = ask(path)
    assert found.prediction.fails and found.prediction.delegated == 0
    assert found.measurements[0].error is not None
    assert found.agreed and not found.whole


def test_int4_with_a_scale_a_row_and_a_channel_is_the_cure(gpu: str, tmp_path: Path) -> None:
    """In tables and in weights; so is int8 in tables."""
    path = tmp_path / "model.tflite"
    dynamic_wi4_afp32(source(), path, TfliteDynamicInt4Options(embeddings="int4_row", block_size=0), None)
    stored = {op.kind: op.inputs[1].dtype for op in read_operators(path) if op.kind == "EMBEDDING_LOOKUP"}
    assert stored == {"EMBEDDING_LOOKUP": "int4"}
    found = ask(path)
    assert found.whole and found.agreed
    assert found.measurements[0].rel_diff is not None and found.measurements[0].rel_diff < 1e-4


def test_the_stock_mask_is_nan_in_fp16_and_minus_1e4_cures_it(gpu: str, tmp_path: Path) -> None:
    for name, mask_value in (("stock", -3.4e38), ("ours", -1e4)):
        (tmp_path / name).mkdir()
        path = convert(tmp_path / name, mask_value)
        assert ask(path).measurements[0].right, "in fp32 both are right"
        (measured,) = ask(path, precision="fp16").measurements
        assert measured.right is (name == "ours"), measured

"""A planted bad layer is found and left in float; the search keeps its budget."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.data.dataset import Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ExportError, ParamsError
from pocketbert.params import QuantizeParams, SensitivityParams, parse_params
from pocketbert.quantize.run import quantize_artifact
from pocketbert.quantize.sensitivity import _Progress, _Search
from pocketbert.quantize.sensitivity_graph import Operation, onnx_layers, quantized_operations
from pocketbert.quantize.sensitivity_trial import Trial
from pocketbert.runtimes.engines import open_runtime
from pocketbert.runtimes.rows import run_texts
from tests.quantize.planted import plant_in_onnx, plant_in_tflite
from tests.quantize.test_vocabulary import DROPPED
from tests.runtimes.conftest import LENGTH


@pytest.fixture(scope="module")
def planted(tflite: Artifact, onnx: Artifact, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("planted")
    return {"tflite": plant_in_tflite(tflite, folder / "tflite"), "onnx": plant_in_onnx(onnx, folder / "onnx")}


def accuracy(artifact: Artifact, rows: Split) -> float:
    runtime = open_runtime(artifact)
    return float(np.mean(run_texts(artifact, runtime, rows.texts, LENGTH).argmax(axis=1) == rows.targets))


def quantize(
    source: Artifact,
    recipe: str,
    exclude: Any,
    split: Split,
    folder: Path,
    *,
    train: Split | None = None,
    vocabulary: str = "full",
    **sensitivity: Any,
) -> tuple[Artifact, dict[str, Any]]:
    """The artifact and its study (None without one)."""
    settings = {"sensitivity": {"rows": 96, "max_runs": 30} | sensitivity} if exclude == "auto" else {}
    variant = {"format": source.card.format, "recipe": recipe, "options": {"exclude": exclude}, **settings}
    variant["vocabulary"] = vocabulary
    params = QuantizeParams.model_validate({"calibration": {"rows": 16}, "recipes": {"it": variant}})
    study = folder.with_suffix(".json")
    quantize_artifact(params, "it", {source.card.format: source.folder}, train or split, folder, split, study)
    return read_artifact(folder), json.loads(study.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("kind", "recipe"), [("tflite", "dynamic_wi8_afp32"), ("onnx", "dynamic_int8")])
def test_a_planted_bad_layer_is_ranked_first_and_left_in_float(
    kind: str, recipe: str, planted: dict[str, Artifact], toy_split: Split, tmp_path: Path
) -> None:
    source = planted[kind]
    assert accuracy(source, toy_split) > 0.95
    plain, study = quantize(source, recipe, [], toy_split, tmp_path / "plain")
    assert study is None
    assert accuracy(plain, toy_split) < 0.8
    auto, study = quantize(source, recipe, "auto", toy_split, tmp_path / "auto")
    assert accuracy(auto, toy_split) == accuracy(source, toy_split)
    assert study["layers"][0]["name"] == "head"
    assert study["layers"][0]["accuracy_drop"] > 15
    assert max(layer["accuracy_drop"] for layer in study["layers"][1:]) < 5
    assert study["runs"] <= 30
    assert study["everything"]["accuracy_drop"] > 15
    assert study["chosen"]["accuracy_drop"] <= 0.3
    assert all(cell["name"].startswith("head ") for cell in study["cells"] if cell["excluded"])
    assert study["exclude"]
    # The same list written out gives the same file.
    listed, _ = quantize(source, recipe, study["exclude"], toy_split, tmp_path / "listed")
    assert listed.md5() == auto.md5()
    # Only the head's 1,120 weights are back in float.
    assert 0 < auto.size_bytes - plain.size_bytes < 6000
    recorded = json.loads((auto.folder / "recipe.json").read_text(encoding="utf-8"))
    assert recorded["options"]["exclude"] == study["exclude"]


@pytest.mark.parametrize(("kind", "recipe"), [("tflite", "dynamic_wi8_afp32"), ("onnx", "dynamic_int8")])
def test_auto_studies_the_model_of_the_trimmed_vocabulary(
    kind: str, recipe: str, planted: dict[str, Artifact], toy_split: Split, tmp_path: Path
) -> None:
    kept = [i for i, text in enumerate(toy_split.texts) if not set(DROPPED) & set(text.split())]
    train = Split([toy_split.texts[i] for i in kept], toy_split.targets[kept])
    source = planted[kind]
    trimmed: dict[str, Any] = {"train": train, "vocabulary": "trimmed"}
    auto, study = quantize(source, recipe, "auto", toy_split, tmp_path / "auto", **trimmed)
    assert TextEncoder(source.folder).vocabulary_size - TextEncoder(auto.folder).vocabulary_size == len(DROPPED)
    # On rows without the dropped words it is the model that it was.
    assert accuracy(auto, train) == accuracy(source, train)
    assert study["everything"]["accuracy_drop"] > 15
    assert study["chosen"]["accuracy_drop"] <= 0.3
    assert study["exclude"]
    assert all(cell["name"].startswith("head ") for cell in study["cells"] if cell["excluded"])
    listed, _ = quantize(source, recipe, study["exclude"], toy_split, tmp_path / "listed", **trimmed)
    assert listed.md5() == auto.md5()


def test_a_sound_recipe_excludes_nothing_but_is_ranked(tflite: Artifact, toy_split: Split, tmp_path: Path) -> None:
    auto, study = quantize(tflite, "dynamic_wi8_afp32", "auto", toy_split, tmp_path / "auto")
    plain, _ = quantize(tflite, "dynamic_wi8_afp32", [], toy_split, tmp_path / "plain")
    assert study["exclude"] == []
    assert "nothing is excluded" in study["reason"]
    assert auto.md5() == plain.md5()
    names = [layer["name"] for layer in study["layers"]]
    assert sorted(names) == [
        "embeddings", "head", "layer.0.attention", "layer.0.feed_forward", "layer.1.attention", "layer.1.feed_forward",
    ]  # fmt: skip
    harms = [layer["logit_mean_rel_diff"] for layer in study["layers"]]
    assert harms == sorted(harms, reverse=True)
    assert {kind["name"] for kind in study["kinds"]} == {"FULLY_CONNECTED", "GATHER"}


def test_limits_that_nothing_keeps_are_one_clear_line(tflite: Artifact, toy_split: Split, tmp_path: Path) -> None:
    recipe = "dynamic_wi8_afp32"
    with pytest.raises(ExportError, match=r"exclude: auto found no list in \d+ runs that keeps") as caught:
        quantize(tflite, recipe, "auto", toy_split, tmp_path / "q", logit_rel_diff_max=1e-9, max_runs=12, rows=24)
    assert "\n" not in str(caught.value)


def test_layers_are_found_in_the_graph(quantized: dict[str, Artifact], tflite: Artifact, onnx: Artifact) -> None:
    found = quantized_operations(tflite.model_path, quantized["tflite-dynamic_wi8_afp32"].model_path)
    dense = [(op.layer, op.kind) for op in found if op.kind == "FULLY_CONNECTED"]
    layer = "layer.{}.{}".format
    # Queries, keys and values are one product, and the output is another.
    assert [dense.count((layer(i, "attention"), "FULLY_CONNECTED")) for i in range(2)] == [2, 2]
    assert [dense.count((layer(i, "feed_forward"), "FULLY_CONNECTED")) for i in range(2)] == [2, 2]
    assert dense.count(("head", "FULLY_CONNECTED")) == 2
    assert {op.layer for op in found if op.kind == "GATHER"} == {"embeddings"}
    halves = quantized_operations(onnx.model_path, quantized["onnx-fp16"].model_path)
    assert {"Softmax", "LayerNormalization", "MatMul", "Gemm"} <= {op.kind for op in halves}
    assert quantized_operations(onnx.model_path, onnx.model_path) == []


def test_onnx_names_tell_layers() -> None:
    names = ["/encoder/embeddings/Gather", "/encoder/transformer/layer.0/attention/q_lin/MatMul",
             "/encoder/transformer/layer.0/ffn/lin1/MatMul", "/encoder/encoder/layer.11/bottleneck/input/dense/MatMul",
             "/ReduceSum", "/head/linear_0/Gemm"]  # fmt: skip
    assert list(onnx_layers(names)) == [
        "embeddings", "layer.0.attention", "layer.0.feed_forward", "layer.11.attention", "head", "head",
    ]  # fmt: skip
    assert list(onnx_layers(["MatMul_1", "Softmax_3"])) == ["model", "model"]


class Additive:
    """A bench whose model loses 10 points for each bad operation that is quantized, and a little for all others."""

    accuracy = 0.9

    def __init__(self, operations: list[Operation], bad: frozenset[Operation]) -> None:
        self._operations, self._bad, self.runs = operations, bad, 0

    def operations(self) -> list[Operation]:
        return self._operations

    def measure(self, excluded: Iterable[Operation]) -> Trial:
        self.runs += 1
        quantized = set(self._operations) - set(excluded)
        harm = len(quantized & self._bad) + 0.001 * len(quantized)
        return Trial(logit_mean_rel_diff=harm, logit_rel_diff=3 * harm, accuracy_drop=10.0 * len(quantized & self._bad))


@given(st.data(), st.integers(1, 9), st.integers(1, 6), st.integers(12, 60))
def test_the_search_finds_what_is_bad_within_its_budget(
    data: st.DataObject, layers: int, kinds: int, max_runs: int
) -> None:
    operations = [Operation(f"{i}/{k}", f"k{k}", f"layer.{i}") for i in range(layers) for k in range(kinds)]
    bad = frozenset(data.draw(st.lists(st.sampled_from(operations), max_size=3)))
    bench, params = Additive(operations, bad), SensitivityParams(max_runs=max_runs)
    with _Progress("it", max_runs) as progress:
        search = _Search(params, bench, progress)  # type: ignore[arg-type]
        if bad == set(operations):
            with pytest.raises(ExportError):
                search.study(1)
            return
        try:
            study = search.study(1)
        except ExportError:
            # Where a budget is too small to tell cells apart, the only list may be that of all operations.
            assert layers + kinds + 12 > max_runs
            return
    assert bench.runs == study.runs <= max_runs
    left_out = {operation for cell in study.excluded for operation in cell.operations}
    assert bad <= left_out
    if layers + kinds + 2 * layers * kinds + 8 <= max_runs:
        assert left_out == bad


def test_settings_without_auto_are_refused() -> None:
    recipe = {"format": "tflite", "recipe": "fp16", "sensitivity": {"rows": 64}}
    with pytest.raises(ParamsError, match=r"quantize\.recipes\.x.*only `options: \{exclude: auto\}` reads"):
        parse_params({"quantize": {"recipes": {"x": recipe}}}, Path("params.yaml"))

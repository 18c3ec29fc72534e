import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx as onnx_format
import pytest
from ai_edge_litert.interpreter import Interpreter

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.data.dataset import Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ParamsError, PocketBertError
from pocketbert.params import QuantizeParams
from pocketbert.quantize.flatbuffer import float_ops
from pocketbert.quantize.run import quantize_artifact
from pocketbert.runtimes.engines import open_runtime
from tests.quantize.built import int8_tensors, quantize


def test_every_variant_is_a_complete_artifact_that_classifies(
    quantized: dict[str, Artifact], tflite: Artifact, onnx: Artifact, toy_split: Split
) -> None:
    for variant, artifact in quantized.items():
        card, source = artifact.card, {"onnx": onnx, "tflite": tflite}[artifact.card.format]
        assert card.name == variant
        assert card.recipe == variant.split("-")[1]
        bits = "fp16" if variant.endswith("-fp16") else "int4" if "i4" in variant or "int4" in variant else "int8"
        assert card.precision == bits
        assert (card.sequence_length, card.max_length) == (source.card.sequence_length, source.card.max_length)
        assert artifact.size_bytes < source.size_bytes
        record = json.loads((artifact.folder / "recipe.json").read_text())
        assert record["source_md5"] == source.md5()
        assert (record["calibration"] is not None) == ("static" in variant)
        assert sum(record["bytes"].values()) == artifact.size_bytes
        assert record["bytes"]["other"] < 100
        runtime = open_runtime(artifact)
        rows = TextEncoder(artifact.folder).encode(toy_split.texts, 16)
        assert np.mean(runtime.run(rows).argmax(axis=1) == toy_split.targets) > 0.95, variant


def test_inputs_and_outputs_keep_names_and_types(quantized: dict[str, Artifact], tflite: Artifact) -> None:
    def interface(artifact: Artifact) -> dict[str, object]:
        runner = Interpreter(model_path=str(artifact.model_path)).get_signature_runner("serving_default")
        both = runner.get_input_details() | runner.get_output_details()
        return {name: (np.dtype(d["dtype"]).name, d["shape"].tolist()) for name, d in both.items()}

    for artifact in quantized.values():
        if artifact.card.format == "tflite":
            assert interface(artifact) == interface(tflite)


@pytest.mark.parametrize("recipe", ["dynamic_int8", "static_int8", "weight_only_int4", "fp16"])
def test_excluded_onnx_nodes_stay_in_float(recipe: str, onnx: Artifact, toy_split: Split, tmp_path: Path) -> None:
    chosen = {
        "format": "onnx",
        "recipe": recipe,
        "options": {"exclude": [r"layer\.0/", "linear_1/Gemm$", "word_embeddings"]},
    }
    artifact, record = quantize(chosen, [onnx], toy_split, tmp_path / "q")
    before, after = onnx_format.load(onnx.model_path), onnx_format.load(artifact.model_path)
    weights = {n.input[1] for n in before.graph.node if n.op_type == "MatMul" and "layer.0/" in n.name}
    floats = {t.name for t in after.graph.initializer if t.data_type == onnx_format.TensorProto.FLOAT}
    constants = {t.name for t in before.graph.initializer}
    assert weights & constants <= floats
    assert "encoder.embeddings.word_embeddings.weight" in floats
    assert any("linear_1" in name for name in floats)
    assert not any(name in floats for name in constants if "linear_0.weight" in name)
    assert (
        not {n.input[1] for n in before.graph.node if n.op_type == "MatMul" and "layer.1/" in n.name}
        & constants
        & floats
    )
    assert record["applied"]["excluded"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("layer_9", "'layer_9' is found in the name of no"), ("(", "'(' is no regular expression")],
)
@pytest.mark.parametrize("recipe", [("tflite", "dynamic_wi8_afp32"), ("onnx", "dynamic_int8")])
def test_a_pattern_that_excludes_nothing_is_one_clear_line(
    pattern: str,
    message: str,
    recipe: tuple[str, str],
    tflite: Artifact,
    onnx: Artifact,
    toy_split: Split,
    tmp_path: Path,
) -> None:
    chosen = {"format": recipe[0], "recipe": recipe[1], "options": {"exclude": [pattern]}}
    with pytest.raises(ParamsError) as caught:
        quantize(chosen, [tflite, onnx], toy_split, tmp_path / "q")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_excluded_ops_stay_in_float(tflite: Artifact, toy_split: Split, tmp_path: Path) -> None:
    everything = {"format": "tflite", "recipe": "dynamic_wi8_afp32", "options": {"exclude": [".*"]}}
    artifact, _ = quantize(everything, [tflite], toy_split, tmp_path / "q")
    assert int8_tensors(artifact) == []


def test_static_quantizes_fully_connected_activations_but_not_the_classifier(
    quantized: dict[str, Artifact], tflite: Artifact
) -> None:
    artifact = quantized["tflite-static_wi8_ai8"]
    record = json.loads((artifact.folder / "recipe.json").read_text())
    connected = [op for op in float_ops(tflite.model_path.read_bytes()) if op.kind == "FULLY_CONNECTED"]
    dynamic = record["applied"]["dynamic_instead"]
    assert connected[-1].outputs[0][1] in dynamic
    assert len(dynamic) < len(connected)
    int8_names = {tensor["name"].split("_quantized")[0] for tensor in int8_tensors(artifact)}
    for op in connected:
        assert (op.outputs[0][1] in int8_names) == (op.outputs[0][1] not in dynamic)
    assert record["calibration"]["drawn"] == 32
    assert len(record["calibration"]["sha256"]) == 64


def test_static_onnx_reads_calibrated_scales(quantized: dict[str, Artifact], onnx: Artifact) -> None:
    artifact = quantized["onnx-static_int8"]
    record = json.loads((artifact.folder / "recipe.json").read_text())
    nodes = onnx_format.load(artifact.model_path).graph.node
    kinds = Counter(node.op_type for node in nodes)
    products = [n for n in onnx_format.load(onnx.model_path).graph.node if n.op_type in ("MatMul", "Gemm")]
    attention = 2 * 2
    dynamic = record["applied"]["dynamic_instead"]
    assert dynamic[-1].startswith("/head/linear_1")
    assert kinds["MatMulInteger"] == len(dynamic) < len(products) - attention
    # A scale of the input and one of the weights for each product; products that share an input share its scale.
    assert kinds["DequantizeLinear"] > kinds["QuantizeLinear"] > 0
    scales = {t.name: t for t in onnx_format.load(artifact.model_path).graph.initializer}
    weights = [
        scales[n.input[1]].dims for n in nodes if n.op_type == "DequantizeLinear" and len(scales[n.input[1]].dims)
    ]
    assert weights


@pytest.mark.parametrize("ranges", ["percentile", "entropy"])
@pytest.mark.parametrize("recipe", [("tflite", "static_wi8_ai8"), ("onnx", "static_int8")])
def test_ranges_of_other_methods_are_no_wider_and_the_model_still_classifies(
    ranges: str, recipe: tuple[str, str], tflite: Artifact, onnx: Artifact, toy_split: Split, tmp_path: Path
) -> None:
    widths = []
    for number, method in enumerate(("min_max", ranges)):
        chosen = {"format": recipe[0], "recipe": recipe[1], "options": {"ranges": method}}
        artifact, record = quantize(
            chosen, [tflite, onnx], toy_split, tmp_path / str(number), clip=None if number == 0 else 99.0
        )
        widths.append({k: high - low for k, (low, high, _) in record["applied"]["ranges_min_max_crest"].items()})
        logits = open_runtime(artifact).run(TextEncoder(artifact.folder).encode(toy_split.texts, 16))
        assert np.mean(logits.argmax(axis=1) == toy_split.targets) > 0.9
    assert widths[0].keys() == widths[1].keys()
    assert all(widths[1][name] <= widths[0][name] for name in widths[0])
    assert sum(widths[1].values()) < sum(widths[0].values())


def test_a_small_crest_factor_makes_every_op_dynamic(tflite: Artifact, toy_split: Split, tmp_path: Path) -> None:
    options = {"format": "tflite", "recipe": "static_wi8_ai8", "options": {"crest_factor_max": 0.1}}
    _, record = quantize(options, [tflite], toy_split, tmp_path / "q")
    connected = [op for op in float_ops(tflite.model_path.read_bytes()) if op.kind == "FULLY_CONNECTED"]
    assert len(record["applied"]["dynamic_instead"]) == len(connected)


def test_the_same_params_give_the_same_file(
    quantized: dict[str, Artifact], tflite: Artifact, toy_split: Split, tmp_path: Path
) -> None:
    params = QuantizeParams.model_validate(
        {"calibration": {"rows": 32, "seed": 1}, "recipes": {"x": {"format": "tflite", "recipe": "static_wi8_ai8"}}}
    )
    quantize_artifact(params, "x", {"tflite": tflite.folder}, toy_split, tmp_path / "x")
    assert read_artifact(tmp_path / "x").md5() == quantized["tflite-static_wi8_ai8"].md5()


def test_onnx_options_reach_the_quantizer(onnx: Artifact, toy_split: Split, tmp_path: Path) -> None:
    options = {"weight_type": "QUInt8", "embeddings": "float", "per_channel": False}
    recipe = {"format": "onnx", "recipe": "dynamic_int8", "options": options}
    artifact, _ = quantize(recipe, [onnx], toy_split, tmp_path / "q")
    kinds = Counter(tensor.data_type for tensor in onnx_format.load(artifact.model_path).graph.initializer)
    assert kinds[onnx_format.TensorProto.UINT8] > 0
    assert kinds[onnx_format.TensorProto.INT8] == 0
    assert artifact.card.options == options


def test_fp16_keeps_float_logits_and_can_keep_ops_in_fp32(onnx: Artifact, toy_split: Split, tmp_path: Path) -> None:
    recipe = {"format": "onnx", "recipe": "fp16", "options": {"keep_fp32_ops": ["LayerNormalization"]}}
    artifact, record = quantize(recipe, [onnx], toy_split, tmp_path / "q")
    graph = onnx_format.load(artifact.model_path).graph
    assert [o.type.tensor_type.elem_type for o in graph.output] == [onnx_format.TensorProto.FLOAT]
    assert "LayerNormalization" in record["applied"]["op_block_list"]
    normalised = {n.input[1] for n in graph.node if n.op_type == "LayerNormalization"}
    assert normalised
    halves = {t.name for t in graph.initializer if t.data_type == onnx_format.TensorProto.FLOAT16}
    assert halves
    assert not halves & normalised


def test_an_unknown_operation_is_named_with_the_nearest(tflite: Artifact, toy_split: Split, tmp_path: Path) -> None:
    recipe = {"format": "tflite", "recipe": "static_wi8_ai8", "options": {"operations": ["FULY_CONNECTED"]}}
    with pytest.raises(ParamsError, match="Did you mean 'FULLY_CONNECTED'"):
        quantize(recipe, [tflite], toy_split, tmp_path / "q")


@pytest.mark.parametrize(
    ("recipe", "message"),
    # What is to compute in fp16 is looked through first.
    [("fp16", r"model\.tflite does not start as a TFLite file"), ("dynamic_wi8_afp32", r"failed on .*model\.tflite")],
)
def test_a_damaged_source_is_one_clear_line(
    recipe: str, message: str, tflite: Artifact, toy_split: Split, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "source"
    shutil.copytree(tflite.folder, folder)
    content = tflite.model_path.read_bytes()
    (folder / "model.tflite").write_bytes(b"\0" * 64 + content[64:500])
    with pytest.raises(PocketBertError, match=message) as caught:
        quantize({"format": "tflite", "recipe": recipe}, [read_artifact(folder)], toy_split, tmp_path / "q")
    assert "\n" not in str(caught.value)

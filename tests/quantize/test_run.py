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
from pocketbert.errors import ExportError, ParamsError
from pocketbert.params import QuantizeParams
from pocketbert.quantize.flatbuffer import float_ops, tables_to_embedding_lookup
from pocketbert.quantize.run import quantize_artifact
from pocketbert.runtimes.engines import open_runtime


def quantize(
    recipe: dict[str, object], sources: list[Artifact], train: Split, folder: Path
) -> tuple[Artifact, dict[str, object]]:
    params = QuantizeParams.model_validate({"calibration": {"rows": 12}, "recipes": {"it": recipe}})
    quantize_artifact(params, "it", {a.card.format: a.folder for a in sources}, train, folder)
    return read_artifact(folder), json.loads((folder / "recipe.json").read_text())


def int8_tensors(artifact: Artifact) -> list[dict[str, object]]:
    details = Interpreter(model_path=str(artifact.model_path)).get_tensor_details()
    return [tensor for tensor in details if tensor["dtype"] == np.int8]


def test_every_variant_is_a_complete_artifact_that_classifies(
    quantized: dict[str, Artifact], tflite: Artifact, onnx: Artifact, toy_split: Split
) -> None:
    for variant, artifact in quantized.items():
        card, source = artifact.card, {"onnx": onnx, "tflite": tflite}[artifact.card.format]
        assert card.name == variant
        assert card.recipe == variant.split("-")[1]
        assert card.precision == ("fp16" if "fp16" in variant else "int8")
        assert (card.sequence_length, card.max_length) == (source.card.sequence_length, source.card.max_length)
        assert artifact.size_bytes < source.size_bytes
        record = json.loads((artifact.folder / "recipe.json").read_text())
        assert record["source_md5"] == source.md5()
        assert (record["calibration"] is not None) == ("static" in variant)
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


def test_embedding_tables_are_quantized(quantized: dict[str, Artifact]) -> None:
    # 25 words x 32; one scale a row, so that a rare large row costs the others nothing.
    for variant in ("tflite-dynamic_wi8_afp32", "tflite-static_wi8_ai8"):
        (table,) = [t for t in int8_tensors(quantized[variant]) if list(t["shape"]) == [25, 32]]
        assert len(table["quantization_parameters"]["scales"]) == 25
    model = onnx_format.load(quantized["onnx-dynamic_int8"].model_path)
    stored = {tuple(t.dims): t.data_type for t in model.graph.initializer}
    # ONNX Runtime quantizes the table of a Gather as an activation: unsigned, one scale.
    assert stored[25, 32] == onnx_format.TensorProto.UINT8


def test_embeddings_can_stay_in_float(tflite: Artifact, toy_split: Split, tmp_path: Path) -> None:
    options = {"format": "tflite", "recipe": "dynamic_wi8_afp32", "options": {"embeddings": False}}
    artifact, record = quantize(options, [tflite], toy_split, tmp_path / "q")
    assert record["applied"]["embedding_lookups"] == 0
    assert [25, 32] not in [list(t["shape"]) for t in int8_tensors(artifact)]
    assert int8_tensors(artifact)


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


def test_gather_and_embedding_lookup_give_the_same_logits(tflite: Artifact, tmp_path: Path) -> None:
    model = tflite.model_path.read_bytes()
    before = Counter(op.kind for op in float_ops(model))
    rewritten, lookups = tables_to_embedding_lookup(model)
    after = Counter(op.kind for op in float_ops(rewritten))
    assert lookups == before["GATHER"] == after["EMBEDDING_LOOKUP"] > 0
    assert after["GATHER"] == 0
    assert tables_to_embedding_lookup(rewritten) == (rewritten, 0)
    rows = TextEncoder(tflite.folder).encode(["the red apple"], 16, pad_to=16)
    logits = []
    for content in (model, rewritten):
        runner = Interpreter(model_content=content).get_signature_runner("serving_default")
        logits.append(runner(**rows)["logits"])
    np.testing.assert_array_equal(*logits)


def test_onnx_options_reach_the_quantizer(onnx: Artifact, toy_split: Split, tmp_path: Path) -> None:
    options = {"weight_type": "QUInt8", "operations": ["MatMul"], "per_channel": False}
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


@pytest.mark.parametrize("recipe", ["fp16", "dynamic_wi8_afp32"])
def test_a_damaged_source_is_one_clear_line(recipe: str, tflite: Artifact, toy_split: Split, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "source"
    shutil.copytree(tflite.folder, folder)
    content = tflite.model_path.read_bytes()
    (folder / "model.tflite").write_bytes(b"\0" * 64 + content[64:500])
    with pytest.raises(ExportError, match=rf"it: {recipe} failed on .*model\.tflite") as caught:
        quantize({"format": "tflite", "recipe": recipe}, [read_artifact(folder)], toy_split, tmp_path / "q")
    assert "\n" not in str(caught.value)

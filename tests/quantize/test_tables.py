"""How embedding tables are stored and read."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx as onnx_format
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnxruntime import InferenceSession

from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ParamsError
from pocketbert.quantize.blocks import quantize_blocks
from pocketbert.quantize.flatbuffer import float_ops, tables_to_embedding_lookup
from pocketbert.quantize.onnx_tables import quantize_tables
from pocketbert.runtimes.engines import open_runtime
from tests.quantize.built import int8_tensors, quantize, stored_types


def test_embedding_tables_are_quantized(quantized: dict[str, Artifact]) -> None:
    # 25 words x 32; one scale a row, so that a rare large row costs the others nothing.
    for variant in ("tflite-dynamic_wi8_afp32", "tflite-static_wi8_ai8"):
        (table,) = [t for t in int8_tensors(quantized[variant]) if list(t["shape"]) == [25, 32]]
        assert len(table["quantization_parameters"]["scales"]) == 25
    for variant in ("onnx-dynamic_int8", "onnx-static_int8", "onnx-weight_only_int8"):
        stored = stored_types(quantized[variant])
        assert stored["encoder.embeddings.word_embeddings.weight_int8"] == "INT8"
    assert stored_types(quantized["onnx-weight_only_int4"])["encoder.embeddings.word_embeddings.weight_int4"] == "UINT8"


@pytest.mark.parametrize("recipe", [("tflite", "dynamic_wi8_afp32"), ("onnx", "weight_only_int8"), ("onnx", "fp16")])
def test_tables_are_stored_as_asked_and_the_model_still_classifies(
    recipe: tuple[str, str], tflite: Artifact, onnx: Artifact, toy_split: Split, tmp_path: Path
) -> None:
    sizes = []
    for embeddings in ("float", "fp16", "int8", "int4", *(["int4_row"] if recipe[0] == "tflite" else [])):
        chosen = {"format": recipe[0], "recipe": recipe[1], "options": {"embeddings": embeddings}}
        artifact, record = quantize(chosen, [tflite, onnx], toy_split, tmp_path / embeddings)
        sizes.append(record["bytes"]["embeddings"])
        logits = open_runtime(artifact).run(TextEncoder(artifact.folder).encode(toy_split.texts, 16))
        assert np.mean(logits.argmax(axis=1) == toy_split.targets) > 0.95, embeddings
    # Rows as short as these have one block each, whose scale is stored in fewer bytes than a row's.
    assert sizes[:4] == sorted(set(sizes[:4]), reverse=True)
    assert all(size < sizes[2] for size in sizes[4:])


def test_int4_with_a_scale_a_row_is_for_tflite(onnx: Artifact) -> None:
    with pytest.raises(ParamsError, match="int4_row is for TFLite"):
        quantize_tables(onnx_format.load(onnx.model_path), "int4_row", [])


@given(hnp.arrays(np.float32, (5, 64), elements=st.floats(-100, 100, width=32)), st.booleans(), st.sampled_from([4, 8]))
def test_a_block_is_off_by_half_a_step_at_most(values: np.ndarray, symmetric: bool, bits: int) -> None:
    blocks = quantize_blocks(values.reshape(5, 2, 32), bits, symmetric)
    zero = 2 ** (bits - 1) if blocks.zero is None else blocks.zero[..., None]
    back = (blocks.levels.astype(np.float32) - zero) * blocks.scale[..., None]
    # A symmetric block has one level less on the side away from its furthest value; a zero point is rounded too.
    limit = (1.0 if symmetric else 1.001) * np.abs(blocks.scale[..., None]) + 1e-6
    assert np.all(np.abs(back - values.reshape(5, 2, 32)) <= limit)


def test_packed_levels_are_read_back_by_onnx_runtime(onnx: Artifact) -> None:
    model = onnx_format.load(onnx.model_path)
    before = run_first_table(model)
    assert quantize_tables(model, "int4", kept=()) == 3
    after = run_first_table(model)
    assert 0 < np.abs(before - after).max() < np.abs(before).max() / 7


def run_first_table(model: onnx_format.ModelProto) -> np.ndarray:
    """The looked-up word embeddings of every id."""
    copy = onnx_format.ModelProto()
    copy.CopyFrom(model)
    looked_up = "/encoder/embeddings/word_embeddings/Gather_output_0"
    copy.graph.output.append(onnx_format.helper.make_tensor_value_info(looked_up, 1, None))
    session = InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    ids = np.arange(16, dtype=np.int64)[None]
    feed = {
        v.name: ids if v.name == "input_ids" else np.ones_like(ids) * (v.name == "attention_mask")
        for v in session.get_inputs()
    }
    return session.run([looked_up], feed)[0]


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

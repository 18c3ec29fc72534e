"""Planted faults of quantized files: each runs and is wrong, and one clear line says so."""

from pathlib import Path

import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import Split
from pocketbert.errors import ProofError
from pocketbert.params import EvaluateParams
from pocketbert.runtimes.evaluate import evaluate_artifacts
from tests.runtimes.conftest import LENGTH, copy_artifact

PARAMS = EvaluateParams(sequence_length=LENGTH, threads=1)


def silence_classifier(model: bytes) -> bytes:
    """Zero the integer weights of the op that computes the logits, in place, as a scale gone wrong does."""
    tree = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    graph = tree.subgraphs[0]
    tensors = [graph.tensors[op.inputs[1]] for op in graph.operators if len(op.inputs) == 3]
    weights = [t for t in tensors if t.type in (schema.TensorType.INT8, schema.TensorType.INT4)]
    stored = bytes(tree.buffers[weights[-1].buffer].data)
    assert any(stored)
    assert model.count(stored) == 1
    return model.replace(stored, bytes(len(stored)))


@pytest.mark.parametrize("variant", ["tflite-dynamic_wi8_afp32", "tflite-static_wi8_ai8", "tflite-dynamic_wi4_afp32"])
def test_an_integer_file_of_constant_output_is_named(
    variant: str, quantized: dict[str, Artifact], student: Artifact, toy_split: Split, tmp_path: Path
) -> None:
    teacher = copy_artifact(student, tmp_path / "teacher", name="teacher")
    broken = copy_artifact(quantized[variant], tmp_path / "broken")
    broken.model_path.write_bytes(silence_classifier(quantized[variant].model_path.read_bytes()))
    with pytest.raises(ProofError) as caught:
        evaluate_artifacts(PARAMS, [teacher, student, broken], toy_split, toy_split, tmp_path / "r", tmp_path / "p")
    said = str(caught.value)
    assert said.startswith(f"{variant} has accuracy 0.333 where the student has 1.000: it predicts one class")
    assert "\n" not in said

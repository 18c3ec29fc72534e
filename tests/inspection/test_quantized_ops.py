"""Versions by the types of an operator's tensors: quantizers leave those of the float model in the file."""

import pytest

from pocketbert.artifacts import Artifact
from pocketbert.inspection.inspect import inspect_file
from pocketbert.inspection.op_versions import MINIMUM_RUNTIME
from pocketbert.inspection.quantized_ops import Stored, needed_version
from pocketbert.inspection.text import as_text

FLOAT, INT8, INT4 = Stored("float32"), Stored("int8"), Stored("int4")
BY_CHANNEL = Stored("int8", by_channel=True)


@pytest.mark.parametrize(
    ("op", "inputs", "outputs", "version"),
    [
        ("FULLY_CONNECTED", [FLOAT, FLOAT], [FLOAT], 1),
        ("FULLY_CONNECTED", [FLOAT, INT8], [FLOAT], 3),
        ("FULLY_CONNECTED", [FLOAT, BY_CHANNEL], [FLOAT], 12),
        ("FULLY_CONNECTED", [INT8, BY_CHANNEL], [INT8], 4),
        ("FULLY_CONNECTED", [INT8, INT4], [INT8], 10),
        ("FULLY_CONNECTED", [FLOAT, INT4], [FLOAT], None),
        ("FULLY_CONNECTED", [FLOAT, Stored("int8", by_block=True)], [FLOAT], None),
        ("EMBEDDING_LOOKUP", [Stored("int32"), FLOAT], [FLOAT], 1),
        ("EMBEDDING_LOOKUP", [Stored("int32"), BY_CHANNEL], [FLOAT], 4),
        ("DEQUANTIZE", [Stored("float16")], [FLOAT], 3),
        ("QUANTIZE", [FLOAT], [INT8], 1),
        ("SOFTMAX", [INT8], [INT8], 2),
        ("GELU", [FLOAT], [FLOAT], 1),
    ],
)
def test_types_ask_for_a_version(op: str, inputs: list[Stored], outputs: list[Stored], version: int | None) -> None:
    assert needed_version(op, inputs, outputs) == version
    assert version is None or (op, version) in MINIMUM_RUNTIME


def test_a_quantized_file_needs_a_later_runtime_than_it_states(quantized: dict[str, Artifact]) -> None:
    inspection = inspect_file(quantized["tflite-dynamic_wi8_afp32"].folder, runtime="2.13")
    assert {(need.use.op, need.use.version, need.runtime) for need in inspection.refused} == {
        ("FULLY_CONNECTED", 12, "2.17"),
        ("EMBEDDING_LOOKUP", 4, "2.18"),
    }
    assert "(the file states version 1, its types ask for more)" in as_text(inspection)
    assert inspect_file(quantized["tflite-fp16"].folder, runtime="2.13").fine

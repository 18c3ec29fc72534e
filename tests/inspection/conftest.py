"""A tiny trained student in three formats, and .tflite files edited by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import pytest

from pocketbert.artifacts import Artifact
from tests.runtimes.conftest import onnx, quantized, student, tflite, toy_split

__all__ = ["onnx", "quantized", "student", "tflite", "toy_split"]
Edit = Callable[[Callable[[Any], None]], Path]


def edit_tflite(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    """Unpack a .tflite file into the schema's objects, change them, and write them again."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(source.read_bytes(), 0))
    change(model)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    target.write_bytes(bytes(builder.Output()))
    return target


@pytest.fixture
def edited(tflite: Artifact, tmp_path: Path) -> Edit:
    return lambda change: edit_tflite(tflite.model_path, tmp_path / "edited.tflite", change)


def rename_op(model: Any, op: str, *, custom: str | None = None, version: int | None = None) -> None:
    """Turn a builtin op into a custom one, or give it another version."""
    from ai_edge_litert import schema_py_generated as schema

    number = getattr(schema.BuiltinOperator, op)
    for code in model.operatorCodes:
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
            if custom is not None:
                code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
                code.customCode = custom.encode()
            code.version = version or code.version

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pocketbert.errors import ProofError
from pocketbert.numerics.dump import open_dump
from pocketbert.numerics.nonfinite import first_nonfinite
from pocketbert.numerics.validate import validate_exports
from pocketbert.params import ValidateParams
from tests.export.trained import exported, make_texts
from tests.numerics.edited import with_mask

TEXTS = make_texts(20, seed=99)[0]


def logarithms(path: Path) -> Path:
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["twice"], name="/encoder/layer.3/Add"),
            helper.make_node("Log", ["twice"], ["log"], name="/encoder/layer.3/Log"),
            helper.make_node("Mul", ["log", "x"], ["y"], name="/encoder/layer.4/Mul"),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_the_producer_of_the_first_nan_is_named_with_what_it_read(tmp_path: Path) -> None:
    dump = open_dump(logarithms(tmp_path / "log.onnx"))
    rows = [("real", [np.float32([1, 2])]), ("holes", [np.float32([3, -4])])]
    found = first_nonfinite(dump, rows)
    assert found is not None
    assert (found.tensor, found.kind, found.count, found.op, found.layer) == ("log", "NaN", 1, "Log", "layer 3")
    assert (found.row, found.number) == ("holes", 1)
    assert found.inputs == ("twice (sum of hidden states) [-8, 6]",)
    assert first_nonfinite(dump, rows[:1]) is None


def test_an_infinity_is_told_from_a_nan(tmp_path: Path) -> None:
    found = first_nonfinite(open_dump(logarithms(tmp_path / "log.onnx")), [("real", [np.float32([0, 1])])])
    assert found is not None
    assert (found.tensor, found.kind) == ("log", "-inf")


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_validate_names_a_mask_of_nan(kind: str, tmp_path: Path) -> None:
    models = exported("bert")
    broken = with_mask(getattr(models, kind), tmp_path / kind, float("nan"))
    with pytest.raises(ProofError, match=rf"^{kind}-fp32: .*NaN.*the mask constant .* is NaN") as caught:
        validate_exports(ValidateParams(rows=4), models.classifier, [broken.folder], TEXTS, tmp_path / "results")
    assert f"export_{kind}.mask_value" in caught.value.fix
    assert "\n" not in str(caught.value)

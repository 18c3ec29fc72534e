import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from pocketbert.errors import CheckpointError, ParamsError
from pocketbert.export.single import export_file
from tests.export.masked_lm import topic_lm
from tests.export.trained import trained_classifier


def constants(path: Path) -> list[float]:
    """Single float numbers of a graph."""
    model = onnx.load(path)
    tensors = [a.t for node in model.graph.node for a in node.attribute if a.HasField("t")]
    arrays = [onnx.numpy_helper.to_array(t) for t in tensors if t.data_type == onnx.TensorProto.FLOAT]
    return [float(a.reshape(-1)[0]) for a in arrays if a.size == 1]


def test_the_mask_is_set_or_kept_and_the_tokenizer_comes_along(tmp_path: Path) -> None:
    said = export_file(topic_lm(), tmp_path / "set" / "lm.onnx", "auto", -12345.0, 17)
    assert "fill-mask, opset 17, the mask -12345" in said
    assert (tmp_path / "set" / "tokenizer.json").is_file()
    assert min(constants(tmp_path / "set" / "lm.onnx")) == -12345.0
    export_file(topic_lm(), tmp_path / "stock.onnx", "fill-mask", None, 17)
    assert min(constants(tmp_path / "stock.onnx")) == np.finfo(np.float32).min
    (output,) = onnx.load(tmp_path / "stock.onnx").graph.output
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == [
        "batch_size",
        "sequence_length",
        65,
    ]


def test_a_head_that_transformers_would_leave_random_is_refused(tmp_path: Path) -> None:
    shutil.copytree(topic_lm(), tmp_path / "lm")
    weights = load_file(tmp_path / "lm/model.safetensors")
    del weights["cls.predictions.transform.dense.weight"]
    save_file(weights, tmp_path / "lm/model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack cls\.predictions\.transform\.dense\.weight"):
        export_file(tmp_path / "lm", tmp_path / "lm.onnx", "auto", -1e4, 17)
    assert not (tmp_path / "lm.onnx").exists()


def test_impossible_wishes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"lm\.pt is no \.onnx or \.tflite file"):
        export_file(topic_lm(), tmp_path / "lm.pt", "auto", -1e4, 17)
    with pytest.raises(ParamsError, match="no task 'translation'"):
        export_file(topic_lm(), tmp_path / "lm.onnx", "translation", -1e4, 17)
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        export_file(tmp_path, tmp_path / "lm.onnx", "fill-mask", -1e4, 17)
    with pytest.raises(CheckpointError, match="masked-language model"):
        export_file(trained_classifier("bert"), tmp_path / "lm.onnx", "fill-mask", -1e4, 17)

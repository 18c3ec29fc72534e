import json
import logging
from pathlib import Path

import numpy as np
import pytest

from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import Split
from pocketbert.errors import ProofError
from pocketbert.params import QuantizeParams
from pocketbert.quantize.run import quantize_artifact
from tests.export.trained import exported, make_texts
from tests.numerics.edited import bert, with_constant, with_mask


def quantize(source: Artifact, folder: Path) -> dict[str, object]:
    params = QuantizeParams.model_validate({"recipes": {"half": {"format": source.card.format, "recipe": "fp16"}}})
    texts, targets = make_texts(12, seed=4)
    train = Split(texts, targets.numpy())
    return dict(quantize_artifact(params, "half", {source.card.format: source.folder}, train, folder))


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_the_ranges_of_the_source_lie_beside_the_model(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = with_mask(getattr(exported("bert"), kind), tmp_path / "source", -1e4)
    with caplog.at_level(logging.WARNING, "pocketbert"):
        metrics = quantize(source, tmp_path / "half")
    assert metrics["unsafe_in_fp16"] == 0
    assert not caplog.text
    ranges = json.loads((tmp_path / "half/ranges.json").read_text())
    assert (ranges["safe"], ranges["rows"]["padding"]) == (True, 1)
    assert "longest" in ranges["rows"]


def test_a_danger_in_the_source_is_a_warning_that_names_node_and_cause(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = with_mask(exported("bert").tflite, tmp_path / "source", np.finfo(np.float32).min)
    with caplog.at_level(logging.WARNING, "pocketbert"):
        metrics = quantize(source, tmp_path / "half")
    assert metrics["unsafe_in_fp16"] > 1
    assert "half: tflite-fp32 does not fit into fp16: overflow: mul/y" in caplog.records[0].getMessage()
    assert "mask constant, read by MUL" in caplog.records[0].getMessage()


def test_a_conversion_that_makes_an_infinity_is_refused_by_the_name_of_its_producer(tmp_path: Path) -> None:
    name = "encoder.encoder.layer.1.attention.self.{}.bias"
    source = with_constant(
        exported("bert").onnx, tmp_path / "keys", bert(name.format("key")), np.float32(3e4) * (-1) ** np.arange(32)
    )
    queries = bert(name.format("query"))
    source = with_constant(source.folder, tmp_path / "both", queries, np.float32(3e4) * (-1) ** np.arange(32))
    with pytest.raises(
        ProofError, match=r"half: the first \S+ is in .*layer\.1.*attention scores, layer 1.*by MatMul"
    ) as caught:
        quantize(source, tmp_path / "half")
    assert r"exclude: ['^/encoder/encoder/layer\.1/attention/self/MatMul" in caught.value.fix

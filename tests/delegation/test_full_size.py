"""MobileBERT as published, 24 layers at 128 tokens. Random weights do for counting; wide ones make logits differ."""

from pathlib import Path

import pytest
import torch

from pocketbert.delegation.analyze import analyze, find_profile
from pocketbert.delegation.rows import made_up_rows
from pocketbert.export.tflite import convert
from pocketbert.modeling.classifier import PocketBertClassifier, PocketBertConfig
from pocketbert.params import HeadParams

# Of transformers' MobileBertConfig; fewer words, which no operator depends on. At the usual 0.02 the logits hardly
# depend on the input; at 0.05 two sets of LiteRT's own CPU kernels are 5 % of the spread apart; at 0.04 fp32 is 8e-6
# of it from fp64.
MOBILEBERT = {"model_type": "mobilebert", "vocab_size": 2000, "initializer_range": 0.04}


@pytest.mark.timeout(1200)
def test_mobilebert_with_24_layers_is_on_the_gpu_whole_and_right(gpu: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = PocketBertConfig(encoder=MOBILEBERT, pooling="mean", head=HeadParams().model_dump(), num_labels=4)
    model = PocketBertClassifier(config).eval()
    path = tmp_path / "model.tflite"
    path.write_bytes(convert(model, 128, -1e4))
    rows = {name: values[[1, -1]] for name, values in made_up_rows(path).items()}
    found = analyze(path, find_profile("litert-2.3"), rows=rows, timeout_s=600)
    (measured,) = found.measurements
    assert measured.error is None
    assert found.prediction.whole and found.agreed and found.whole
    assert measured.placement is not None and measured.placement.partitions == 1
    assert measured.placement.delegated == measured.placement.total == found.prediction.total > 500
    assert measured.rel_diff is not None and measured.rel_diff < 1e-4

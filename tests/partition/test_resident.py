"""What the limit is for: resident memory, watched from another process."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.memory import watch
from pocketbert.export.tflite import convert
from pocketbert.modeling.classifier import PocketBertClassifier, PocketBertConfig
from pocketbert.params import HeadParams
from pocketbert.partition.divide import divide, write_parts
from pocketbert.partition.lifetime import Schedule
from pocketbert.partition.model import read_graph
from pocketbert.partition.needs import MB, plan_memory

pytestmark = pytest.mark.xdist_group("partition")

VOCABULARY, LIMIT_MB = 2000, 16.0


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """19 MB of encoder weights; random ones take the memory of trained ones."""
    torch.manual_seed(3)
    encoder = {
        "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": 256, "num_hidden_layers": 6,
        "num_attention_heads": 4, "intermediate_size": 1024, "max_position_embeddings": 128,
    }  # fmt: skip
    config = PocketBertConfig(encoder=encoder, pooling="mean", head=HeadParams().model_dump(), num_labels=8)
    path = tmp_path_factory.mktemp("resident") / "large.tflite"
    path.write_bytes(convert(PocketBertClassifier(config).eval(), 128, -1e4))
    return path


def test_parts_keep_resident_memory_within_the_limit(large: Path, tmp_path: Path) -> None:
    planned = plan_memory(Schedule(read_graph(large))).need.total_bytes
    manifest = write_parts(divide(large, LIMIT_MB), tmp_path / "parts")
    whole = watch(large, rows=2, vocabulary=VOCABULARY)
    parts = watch(tmp_path / "parts/parts.json", rows=2, vocabulary=VOCABULARY)
    assert 0.75 * planned < whole.peak_bytes < 1.15 * planned
    assert parts.peak_bytes <= LIMIT_MB * MB
    assert parts.peak_bytes < 0.4 * whole.peak_bytes
    assert manifest.largest_need_bytes <= LIMIT_MB * MB
    assert np.array_equal(whole.logits, parts.logits)

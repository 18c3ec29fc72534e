"""transformers' own way from torch to TensorFlow leaves a Sequential head at random values; our proofs catch it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pocketbert.artifacts import read_artifact
from pocketbert.comparison.compare import compare_files
from pocketbert.errors import ProofError
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.numerics.constants import read_constants
from pocketbert.numerics.tensors import compare_tensors
from tests.export.trained import SEQUENCE_LENGTH, exported, make_texts


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our TFLite artifact with the file that transformers and TensorFlow make of the same classifier."""
    folder = tmp_path_factory.mktemp("stock") / "tflite"
    # Without what belongs to our own file: how its fused layers lie.
    shutil.copytree(exported("bert").tflite, folder, ignore=shutil.ignore_patterns("*.npz", "*.npy"))
    script = Path(__file__).with_name("stock_peer.py")
    words = [sys.executable, str(script), str(exported("bert").classifier), str(SEQUENCE_LENGTH)]
    done = subprocess.run([*words, str(folder / "model.tflite")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    # All that transformers says of it, as one warning among others.
    assert "newly initialized: ['weight', 'bias', 'weight', 'bias']" in done.stderr
    return folder


def test_the_tensors_that_did_not_arrive_are_named(stock: Path) -> None:
    model = load_classifier(exported("bert").classifier)
    parameters = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    proof = compare_tensors(parameters, read_constants(read_artifact(stock)), model.encoder.config, SEQUENCE_LENGTH)
    assert {"head.linear_0.weight", "head.linear_1.weight"} <= set(proof.missing)
    # The encoder did arrive.
    assert proof.equal > 30


def test_the_head_is_the_first_layer_that_diverges(stock: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text\n" + "\n".join(make_texts(12, seed=99)[0]) + "\n", encoding="utf-8")
    comparison = compare_files(exported("bert").classifier, stock, tmp_path / "rows.csv", layers=True)
    assert comparison.layers is not None
    first = comparison.layers.first_divergence
    assert first is not None
    assert first.layer == "head.linear_0"
    assert all(layer.rel_diff < 1e-5 for layer in comparison.layers.layers[: comparison.layers.layers.index(first)])
    with pytest.raises(ProofError, match=r"the first layer that diverges is head\.linear_0, "):
        comparison.check(1e-4)

"""The bases beside a .tflite file: read back as written, and never those of another file."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from pocketbert.errors import ProofError
from pocketbert.numerics.fusion import Basis, Weights
from pocketbert.numerics.fusion_bases import copy_bases, read_bases, write_bases


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"a graph")
    weights = Weights({})
    weights.bases = {"layer.0": Basis(scale=np.arange(1.0, 4.0)), "pooling": Basis(shift=np.ones(3))}
    write_bases(weights, path)
    return path


def test_bases_come_back(model):
    bases = read_bases(model)
    assert list(bases) == ["layer.0", "pooling"]
    assert bases["layer.0"].shift is None
    np.testing.assert_array_equal(bases["layer.0"].scale, [1.0, 2.0, 3.0])


def test_bases_of_another_file_are_refused(model):
    model.write_bytes(b"another graph")
    with pytest.raises(ProofError, match=r"does not belong to .*model\.tflite") as caught:
        read_bases(model)
    assert "Export" in caught.value.fix


def test_bases_of_before_they_were_bound_are_refused(model):
    np.savez(model.with_suffix(".bases.npz"), **{"layer.0/scale": np.ones(3)})
    with pytest.raises(ProofError, match="does not belong"):
        read_bases(model)


def test_damaged_bases_are_refused(model):
    model.with_suffix(".bases.npz").write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(ProofError, match="cannot be read"):
        read_bases(model)


def test_a_quantized_copy_gets_bases_of_its_own(model, tmp_path):
    target = tmp_path / "quantized" / "model.tflite"
    target.parent.mkdir()
    target.write_bytes(b"a graph of integers")
    copy_bases(model, target)
    assert list(read_bases(target)) == ["layer.0", "pooling"]
    shutil.copyfile(model.with_suffix(".bases.npz"), target.with_suffix(".bases.npz"))
    with pytest.raises(ProofError):
        read_bases(target)


def test_a_graph_in_its_own_basis_leaves_no_stale_file(model):
    write_bases(None, model)
    assert read_bases(model) == {}


def test_an_onnx_file_beside_it_has_none(model):
    beside = model.with_suffix(".onnx")
    beside.write_bytes(b"onnx")
    write_bases(None, beside)
    assert read_bases(beside) == {}
    assert read_bases(model)

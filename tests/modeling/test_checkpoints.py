import json
import pickle
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from pocketbert.errors import CheckpointError, ParamsError
from pocketbert.modeling import checkpoints
from pocketbert.modeling.assemble import (
    check_fit,
    encoder_dict,
    load_encoder,
    new_classifier,
    read_config,
    save_tokenizer,
)
from pocketbert.modeling.checkpoints import PACKAGED, load_classifier, resolve_checkpoint
from pocketbert.params import HeadParams
from tests.training.toy import LABELS, VOCABULARY, save_checkpoint, save_vocabulary, small_config

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "checkpoint")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No hub cache and no hub: its address is a closed port of this machine."""
    folder = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    return folder


def test_packaged_minilm_is_found_without_a_network(empty_cache: Path) -> None:
    folder = resolve_checkpoint(MINILM)
    encoder = load_encoder(folder, read_config(folder))
    assert encoder.num_parameters() == 22_565_376


def test_packaged_minilm_with_another_hash_is_refused(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, inner, digest = PACKAGED[MINILM]
    monkeypatch.setitem(checkpoints.PACKAGED, MINILM, (package, inner, digest[::-1]))
    with pytest.raises(CheckpointError, match="SHA-256"):
        resolve_checkpoint(MINILM)


def test_hub_cache_comes_before_the_network(empty_cache: Path, checkpoint: Path) -> None:
    commit = "0" * 40
    snapshot = empty_cache / "models--someone--tiny" / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    checkpoint.rename(snapshot)
    (empty_cache / "models--someone--tiny" / "refs").mkdir()
    (empty_cache / "models--someone--tiny" / "refs" / "main").write_text(commit)
    assert resolve_checkpoint("someone/tiny") == snapshot


@pytest.mark.parametrize("offline", [False, True])
def test_unknown_checkpoint_is_told_at_once(empty_cache: Path, offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    started = time.monotonic()
    with pytest.raises(CheckpointError, match="nobody/nothing") as caught:
        resolve_checkpoint("nobody/nothing")
    assert time.monotonic() - started < 5
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["/no/such/folder", "a name with blanks", "./nowhere"])
def test_what_cannot_be_a_name_is_told(name: str, empty_cache: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a folder here nor a name on the hub"):
        resolve_checkpoint(name)


def test_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        resolve_checkpoint(str(tmp_path))


@pytest.mark.parametrize("keep", [0, 5, 2000, -1])
def test_truncated_weights_are_refused(checkpoint: Path, keep: int) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="cut off or damaged"):
        resolve_checkpoint(str(checkpoint))


def test_corrupted_header_is_refused(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(b"\x50" * 64 + path.read_bytes()[64:])
    with pytest.raises(CheckpointError, match="cut off or damaged"):
        resolve_checkpoint(str(checkpoint))


class Malicious:
    """A pickle of this touches a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_malicious_pickle_is_refused_and_never_run(checkpoint: Path, tmp_path: Path, writer: str) -> None:
    (checkpoint / "model.safetensors").unlink()
    touched, path = tmp_path / "touched", checkpoint / "pytorch_model.bin"
    if writer == "torch":
        torch.save({"weight": Malicious(touched)}, path)
    else:
        path.write_bytes(pickle.dumps({"weight": Malicious(touched)}))
    with pytest.raises(CheckpointError, match="refused"):
        resolve_checkpoint(str(checkpoint))
    assert not touched.exists()


def test_plain_tensors_in_a_pickle_are_loaded(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    torch.save(weights, checkpoint / "pytorch_model.bin")
    folder = resolve_checkpoint(str(checkpoint))
    encoder = load_encoder(folder, read_config(folder))
    name = "encoder.layer.0.output.dense.weight"
    assert torch.equal(encoder.state_dict()[name], weights[name])


def test_cut_off_pickle_is_refused(checkpoint: Path) -> None:
    path = checkpoint / "pytorch_model.bin"
    torch.save(load_file(checkpoint / "model.safetensors"), path)
    (checkpoint / "model.safetensors").unlink()
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(CheckpointError, match="cut off or damaged"):
        resolve_checkpoint(str(checkpoint))


@pytest.mark.parametrize("fault", ["missing", "left over", "shape", "nan"])
def test_encoder_that_is_not_all_there_is_refused(checkpoint: Path, fault: str) -> None:
    path, name = checkpoint / "model.safetensors", "encoder.layer.1.output.dense.weight"
    weights = load_file(path)
    match fault:
        case "missing":
            del weights[name]
        case "left over":
            weights["encoder.layer.3.output.dense.weight"] = weights[name].clone()
        case "shape":
            weights[name] = weights[name][:, :-1].clone()
        case "nan":
            weights[name][0, 0] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"encoder\.layer\.\d\.output\.dense\.weight"):
        load_encoder(checkpoint, read_config(checkpoint))


def test_pre_training_heads_are_left_out_in_silence(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    weights = load_file(path)
    weights |= {"cls.predictions.bias": torch.zeros(21), "embeddings.position_ids": torch.arange(40)[None]}
    save_file(weights, path, metadata={"format": "pt"})
    assert load_encoder(checkpoint, read_config(checkpoint)).pooler is None


def test_classifier_without_its_head_is_refused(tmp_path: Path) -> None:
    new_classifier(encoder_dict(small_config("bert")), "mean", HeadParams(), LABELS).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("head.")}
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"head\.linear_0"):
        load_classifier(tmp_path)


def test_bare_encoder_is_no_classifier(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="not a classifier"):
        load_classifier(checkpoint)


@pytest.mark.parametrize("model_type", ["gpt2", "t5", "no_such_type"])
def test_other_architectures_are_refused(checkpoint: Path, model_type: str) -> None:
    (checkpoint / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="BERT"):
        read_config(checkpoint)


def test_vocabulary_file_becomes_a_fast_tokenizer(checkpoint: Path, tmp_path: Path) -> None:
    encoder = save_tokenizer(checkpoint, tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    words = [VOCABULARY.index(word) for word in ("[CLS]", "red", "alpha", "[SEP]")]
    assert encoder.encode_rows(["Red alpha"], 8) == [words]


def test_missing_tokenizer_is_told(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "vocab.txt").unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        save_tokenizer(checkpoint, tmp_path / "out")


def test_length_and_vocabulary_must_fit_the_model(checkpoint: Path, tmp_path: Path) -> None:
    model = new_classifier(encoder_dict(small_config("bert")), "mean", HeadParams(), LABELS)
    encoder = save_tokenizer(checkpoint, tmp_path / "out")
    check_fit(model, encoder, 40)
    with pytest.raises(ParamsError, match="limit of 40"):
        check_fit(model, encoder, 41)
    save_vocabulary(checkpoint, [*VOCABULARY, "more"])
    with pytest.raises(CheckpointError, match="vocabulary"):
        check_fit(model, save_tokenizer(checkpoint, tmp_path / "other"), 40)


def test_half_precision_checkpoint_is_loaded_in_fp32(checkpoint: Path) -> None:
    AutoModel.from_pretrained(checkpoint).half().save_pretrained(checkpoint)
    encoder = load_encoder(checkpoint, read_config(checkpoint))
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}

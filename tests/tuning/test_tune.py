"""The whole command on this machine, with a classifier that takes milliseconds."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pocketbert.cli import app
from pocketbert.data.dataset import LabelSet, Split, write_labels, write_split
from pocketbert.errors import DeviceError, ParamsError
from pocketbert.params import Params, load_params
from pocketbert.profiles import merge_profiles
from pocketbert.tuning.forms import all_forms, default_form
from pocketbert.tuning.profile import write_profile
from pocketbert.tuning.tune import Request, tune
from tests.conftest import ROOT
from tests.devices.links.conftest import sshd  # noqa: F401 (a fixture)
from tests.devices.links.sshd import Sshd
from tests.export.trained import CLASSES, SEQUENCE_LENGTH, make_texts, trained_classifier


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what `tune` reads."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices.yaml").write_text("devices: {local: {kind: local}}\n")
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    overrides = tmp_path / "overrides.yaml"
    lengths = f"sequence_length: {SEQUENCE_LENGTH}"
    overrides.write_text(f"export_tflite: {{{lengths}}}\nbenchmark: {{{lengths}, proof_rows: 8}}\n")
    merge_profiles(tmp_path / "params.yaml", [overrides])
    shutil.copytree(trained_classifier("bert"), tmp_path / "models/classifier")
    prepared = tmp_path / "data/prepared"
    prepared.mkdir(parents=True)
    write_labels(LabelSet(tuple(f"class {i}" for i in range(CLASSES))), prepared)
    for name in ("train", "valid", "test"):
        texts, targets = make_texts(24, seed=len(name))
        write_split(Split(texts, targets.numpy()), prepared / f"{name}.parquet")
    return tmp_path


def test_tune_writes_a_profile_that_the_export_then_uses(project: Path) -> None:
    before = load_params(project / "params.yaml")
    done = CliRunner().invoke(app, ["tune", "--device", "local", "--budget-s", "12", "--json"])
    assert done.exception is None, done.output
    answer = json.loads(done.stdout[done.stdout.index("{") :])
    record = json.loads((project / "profiles/devices/local.json").read_text())
    names = {form.name for form in all_forms(before.export_tflite, tanh=False)}
    assert answer["default"] == default_form(before.export_tflite).name
    assert set(record["forms"]) <= names
    assert all(form["logit_rel_diff"] < 1e-4 for form in record["forms"].values())
    profile = YAML(typ="safe").load((project / "profiles/devices/local.yaml").read_text())
    Params.model_validate(profile)
    after = load_params(project / "params.yaml")
    winner = next(form for form in all_forms(before.export_tflite, tanh=False) if form.name == answer["winner"])
    assert after.export_tflite == winner.apply(before.export_tflite)
    if answer["outcome"] != "faster":
        assert after == before
    else:
        assert answer["duel"]["ratio_high"] < 0.99


def test_an_unknown_device_or_recipe_is_told_before_anything_is_built(project: Path) -> None:
    params = load_params(project / "params.yaml")
    with pytest.raises(ParamsError, match="has no device 'board'"):
        tune(Request("board", 10.0), params)
    with pytest.raises(ParamsError, match="no TFLite recipe 'onnx-fp16'"):
        tune(Request("local", 10.0, recipe="onnx-fp16"), params)


def test_a_tolerated_approximation_is_told_to_the_proof(tmp_path: Path) -> None:
    """GELU by tanh fails `validate` unless the profile says what was allowed."""
    settings = {"export_tflite": {"variants": {"gelu": "tanh"}}, "validate": {"logit_rel_diff_max": 0.01}}
    path = write_profile(settings, {"measured_at": "2026-11-20T00:00:00Z"}, "board", tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    merged = merge_profiles(tmp_path / "params.yaml", [path])
    assert merged.export_tflite.variants.gelu == "tanh"
    assert merged.export_tflite.variants.linear == "fully_connected"
    assert merged.validate_.logit_rel_diff_max == 0.01
    assert path.read_text().startswith("# Written by `pocketbert tune --device board` on 2026-11-20")


def test_a_board_is_tuned_over_ssh(sshd: Sshd, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Two forms, so that only the last comparison is left; what the board's entry says of rounds is not the race's."""
    own = {"runs": 10, "rounds": 1, "threads": 2, "sustained": {"seconds": 60, "artifacts": ["*"]}}
    entry = sshd.params(python=sys.executable, environment="own", benchmark=own)
    entry_text = json.dumps({"devices": {"board": entry.model_dump(mode="json", exclude_unset=True)}})
    (project / "devices.yaml").write_text(entry_text)
    monkeypatch.setattr("pocketbert.tuning.tune.all_forms", lambda params, tanh: all_forms(params, tanh=tanh)[:2])
    monkeypatch.setattr("pocketbert.tuning.race._FINAL_ROUNDS", 6)
    done = CliRunner().invoke(app, ["tune", "--device", "board", "--budget-s", "600", "--json"])
    assert done.exception is None, done.output
    answer = json.loads(done.stdout[done.stdout.index("{") :])
    names = [form.name for form in all_forms(load_params(ROOT / "params.yaml").export_tflite, tanh=False)[:2]]
    assert answer["rounds"] == dict.fromkeys(names, 6)
    assert answer["outcome"] in ("faster", "no difference")
    record = json.loads((project / "profiles/devices/board.json").read_text())
    assert (record["device"], record["threads"]) == ("board", 2)
    # They were measured over there, and not for a minute more.
    assert list((sshd.device / "sessions").iterdir())
    assert record["seconds"] < 600


def test_a_board_that_is_down_says_so(sshd: Sshd, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    entry = sshd.params(host_key="SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU", environment="own")
    entry_text = json.dumps({"devices": {"board": entry.model_dump(mode="json", exclude_unset=True)}})
    (project / "devices.yaml").write_text(entry_text)
    monkeypatch.setattr("pocketbert.tuning.tune.all_forms", lambda params, tanh: all_forms(params, tanh=tanh)[:2])
    with pytest.raises(DeviceError, match=r"could not be measured on board: .* shows the host key"):
        tune(Request("board", 600.0), load_params(project / "params.yaml"))

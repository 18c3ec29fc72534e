import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.cli import app
from pocketbert.errors import CheckpointError, ParamsError
from pocketbert.runtimes.predict import TextClassifier
from tests.export.trained import make_texts

pytestmark = pytest.mark.xdist_group("partition")


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_memory_says_what_a_file_needs(bert: Artifact) -> None:
    plan = json.loads(run("memory", bert.folder, "--json"))
    need = plan["need"]
    assert plan["total_bytes"] == sum(need.values())
    assert plan["smallest_limit_mb"] <= plan["total_bytes"] / 1e6 + 0.1
    assert "parts" not in plan
    text = run("memory", bert.model_path, "--max-memory-mb", plan["total_bytes"] / 1e6)
    assert "part 1 " in text
    assert "weights in memory" in text


def test_a_folder_of_parts_is_a_model(bert: Artifact, tmp_path: Path) -> None:
    plan = json.loads(run("memory", bert.folder, "--json"))
    limit = plan["total_bytes"] / 1e6 - 0.01
    said = run("partition", bert.folder, "--max-memory-mb", limit, "--output", tmp_path / "parts")
    assert "part-1-of-2.tflite" in said
    artifact = read_artifact(tmp_path / "parts")
    assert artifact.in_parts
    texts = make_texts(5, seed=1)[0]
    answers = []
    for folder in (bert.folder, artifact.folder):
        with TextClassifier(folder) as classifier:
            answers.append([prediction.labels for prediction in classifier.classify(texts)])
    assert answers[0] == answers[1]
    assert {names[0][0] for names in answers[0]} > {"class 1"}
    with pytest.raises(CheckpointError, match="holds a model in parts"):
        run("inspect", tmp_path / "parts")
    with pytest.raises(ParamsError, match="exists already"):
        run("partition", bert.folder, "--max-memory-mb", limit, "--output", tmp_path / "parts")


def test_a_bare_file_gives_bare_parts(bert: Artifact, tmp_path: Path) -> None:
    (tmp_path / "other.tflite").write_bytes(bert.model_path.read_bytes())
    manifest = json.loads(
        run("partition", tmp_path / "other.tflite", "--max-memory-mb", 500, "--output", tmp_path / "parts", "--json")
    )
    assert len(manifest["parts"]) == 1
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == ["part-1-of-1.tflite", "parts.json"]


def test_predict_keeps_a_limit(bert: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    limit = json.loads(run("memory", bert.folder, "--json"))["total_bytes"] / 1e6 - 0.01
    whole = json.loads(run("predict", "--model", bert.folder, "--text", "w1 w5 w9", "--json"))
    parts = json.loads(run("predict", "--model", bert.folder, "--text", "w1 w5 w9", "--json", "--max-memory-mb", limit))
    assert parts["labels"] == whole["labels"]
    assert len(list((tmp_path / ".pocketbert/parts").glob("*/part-*.tflite"))) == 2
    (tmp_path / "devices.yaml").write_text("devices: {local: {kind: local, limits: {max_memory_mb: 2}}}\n")
    with pytest.raises(ParamsError, match="does not fit into 2 MB") as raised:
        run("predict", "--model", bert.folder, "--text", "w1")
    # What the error asks for can be given, and is enough.
    smallest = re.findall(r"Set max_memory_mb to (\S+) or more", str(raised.value))[0]
    limits = f"{{max_memory_mb: {smallest}}}"
    (tmp_path / "devices.yaml").write_text(f"devices: {{local: {{kind: local, limits: {limits}}}}}\n")
    smallest_parts = json.loads(run("predict", "--model", bert.folder, "--text", "w1 w5 w9", "--json"))
    assert smallest_parts["labels"] == whole["labels"]

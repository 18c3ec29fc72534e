"""ncnn: converted, proven on the CPU and on a Vulkan driver, its mask trap shown."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pocketbert.artifacts import read_artifact
from pocketbert.cli import app
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ExportError, ProofError
from pocketbert.export.ncnn import convert, export_ncnn
from pocketbert.export.ncnn_proof import prove_ncnn
from pocketbert.modeling.checkpoints import load_classifier
from pocketbert.numerics.logits import compare_logits
from pocketbert.runtimes.engines import open_runtime
from pocketbert.runtimes.ncnn_inputs import GRAPH_FILE, MODEL_FILE, NcnnInputs
from pocketbert.runtimes.ncnn_runtime import NcnnRuntime
from tests.export.trained import MAIN_FAMILIES, MAX_LENGTH, SEQUENCE_LENGTH, make_texts, trained_classifier

TEXTS, _ = make_texts(40, seed=99)


def export(family: str, folder: Path, pooling: str = "mean") -> Path:
    classifier = trained_classifier(family, pooling)
    export_ncnn(classifier, folder, sequence_length=SEQUENCE_LENGTH, mask_value=-1e4)
    return classifier


@pytest.mark.parametrize("family", MAIN_FAMILIES)
def test_every_layer_but_the_lookup_is_on_vulkan_and_right(family: str, tmp_path: Path) -> None:
    classifier = export(family, tmp_path / "ncnn")
    runs = prove_ncnn(classifier, tmp_path / "ncnn", TEXTS)
    if runs[1].placement is None and "CI" not in os.environ:
        pytest.skip("no Vulkan driver: on Debian 12, mesa-vulkan-drivers and libvulkan1 from bookworm-backports")
    assert [(run.accelerator, run.precision, run.right) for run in runs] == [
        ("cpu", "fp32", True),
        ("gpu", "fp32", True),
        ("gpu", "fp16", True),
    ]
    placed = runs[1].placement
    assert placed is not None and placed.software
    assert [reason.partition(":")[0] for reason in placed.refused] == ["Embed"]


def test_cls_pooling(tmp_path: Path) -> None:
    classifier = export("bert", tmp_path / "ncnn", "cls")
    assert prove_ncnn(classifier, tmp_path / "ncnn", TEXTS)[0].right


def test_a_mask_of_one_row_is_taken_and_wrong(tmp_path: Path) -> None:
    """The trap: [1, 1, 1, S] broadcasts in torch. ncnn takes it without a word and computes something else."""

    class OneRow(NcnnInputs):
        def tensors(self, row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            whole = super().tensors(row)
            return whole | {"in1": np.ascontiguousarray(whole["in1"][:, :, :1])}

    classifier = trained_classifier("bert")
    model, encoder = load_classifier(classifier), TextEncoder(classifier)
    rows = encoder.encode(TEXTS, MAX_LENGTH, pad_to=SEQUENCE_LENGTH)
    reference = open_runtime(classifier).run(rows)
    differences = {}
    for kind in (NcnnInputs, OneRow):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        inputs = kind(sequence_length=SEQUENCE_LENGTH, mask_value=-1e4, pooling="mean", token_types=True)
        convert(model, inputs, folder)
        (folder / GRAPH_FILE).write_text(inputs.model_dump_json(), encoding="utf-8")
        runtime = NcnnRuntime(folder / MODEL_FILE, "cpu", "fp32")
        runtime._graph = inputs
        differences[kind] = compare_logits(reference, runtime.run(rows)).max_rel_diff
    assert differences[NcnnInputs] < 1e-4
    assert differences[OneRow] > 1e-2


def test_damaged_weights_fail_the_proof(tmp_path: Path) -> None:
    classifier = export("bert", tmp_path / "ncnn")
    weights = np.fromfile(tmp_path / "ncnn" / MODEL_FILE, dtype=np.float32)
    weights[len(weights) // 2 :][:500] *= -1
    weights.tofile(tmp_path / "ncnn" / MODEL_FILE)
    with pytest.raises(ProofError, match=r"ncnn on the CPU in fp32 is .* of the spread from torch"):
        prove_ncnn(classifier, tmp_path / "ncnn", TEXTS)


def test_an_artifact_as_any_other(tmp_path: Path) -> None:
    classifier, data = trained_classifier("distilbert"), tmp_path / "rows.csv"
    data.write_text("text\n" + "\n".join(TEXTS), encoding="utf-8")
    command = ["ncnn", str(classifier), "--data", str(data), "--output", str(tmp_path / "ncnn"), "--json"]
    done = CliRunner().invoke(app, [*command, "--sequence-length", str(SEQUENCE_LENGTH)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["runs"][0]["comparison"]["max_rel_diff"] < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ncnn", "rows.csv"]
    with_types = TextEncoder(classifier).encode(TEXTS[:4], MAX_LENGTH)
    assert read_artifact(tmp_path / "ncnn").card.sequence_length == SEQUENCE_LENGTH
    logits = [open_runtime(folder).run(with_types) for folder in (classifier, tmp_path / "ncnn")]
    assert np.allclose(*logits, atol=1e-4)


def test_what_cannot_be_converted_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ExportError, match=r"roberta have no ncnn graph. Use a model of type bert, distilbert, mobilebert"
    ):
        export("roberta", tmp_path / "a")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ExportError, match=r"pnnx is not installed. Run: pip install 'pocketbert\[ncnn\]'"):
        export("bert", tmp_path / "b")

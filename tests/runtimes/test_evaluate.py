import json
import math
from pathlib import Path

import numpy as np
import onnx as onnx_format
import pyarrow.parquet as pq
import pytest

from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import Split
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ProofError
from pocketbert.params import EvaluateParams
from pocketbert.runtimes.engines import open_runtime
from pocketbert.runtimes.evaluate import evaluate_artifacts
from pocketbert.runtimes.rows import run_texts
from tests.runtimes.conftest import LENGTH, copy_artifact

PARAMS = EvaluateParams(sequence_length=LENGTH, threads=1)


def add_node(artifact: Artifact, folder: Path, name: str, kind: str, value: float) -> Artifact:
    """A copy of an ONNX artifact whose logits go through one more node with a constant."""
    broken = copy_artifact(artifact, folder, name=name)
    model = onnx_format.load(broken.model_path)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["honest" if output == "logits" else output for output in node.output]
    graph.initializer.append(onnx_format.numpy_helper.from_array(np.float32(value), "planted"))
    graph.node.append(onnx_format.helper.make_node(kind, ["honest", "planted"], ["logits"]))
    onnx_format.save(model, broken.model_path)
    return broken


def half(split: Split) -> Split:
    """Every second row, as a validation split that cannot be taken for the test split."""
    return Split(split.texts[::2], split.targets[::2])


@pytest.fixture(scope="module")
def evaluated(
    every_artifact: list[Artifact], toy_split: Split, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, dict[str, float]]]:
    folder = tmp_path_factory.mktemp("evaluated")
    metrics = evaluate_artifacts(
        PARAMS, every_artifact, toy_split, half(toy_split), folder / "results", folder / "plots"
    )
    return folder, metrics


def test_rows_hold_every_figure_in_order(
    evaluated: tuple[Path, dict[str, dict[str, float]]], every_artifact: list[Artifact]
) -> None:
    folder, metrics = evaluated
    rows = json.loads((folder / "results/evaluate.json").read_text())
    assert [row["artifact"] for row in rows] == [artifact.name for artifact in every_artifact] == list(metrics)
    for row, artifact in zip(rows, every_artifact, strict=True):
        assert row["md5"] == artifact.md5()
        assert row["size_bytes"] == artifact.size_bytes
        assert row["sequence_length"] == LENGTH
        assert row["accuracy"] > 0.95
        assert row["accuracy_drop"] == pytest.approx(100 * (rows[0]["accuracy"] - row["accuracy"]))
        assert row["rows"] == 2 * row["valid_rows"] == 192
        assert row["valid_accuracy_drop"] == pytest.approx(100 * (rows[0]["valid_accuracy"] - row["valid_accuracy"]))
        assert row["runtime"].startswith(
            {"torch": "torch 2", "onnx": "onnxruntime 1", "tflite": "litert 2"}[row["format"]]
        )
        parts = [row[f"{part}_bytes"] for part in ("embeddings", "encoder", "head", "other")]
        assert sum(parts) == artifact.size_bytes
        assert min(parts) > 0
        assert row["vocabulary_tokens"] == TextEncoder(artifact.folder).vocabulary_size
        unknown = row["artifact"] in ("teacher", "student")
        for figure in ("logit_max_abs_diff", "logit_rel_diff", "agreement"):
            assert (row[figure] is None) == unknown
            assert metrics[row["artifact"]].get(figure) == row[figure] or figure == "logit_max_abs_diff"
    by_name = {row["artifact"]: row for row in rows}
    assert by_name["onnx-fp32"]["logit_rel_diff"] < 1e-4
    assert by_name["tflite-fp32"]["logit_rel_diff"] < 1e-4
    assert 1e-5 < by_name["tflite-fp16"]["logit_rel_diff"] < 0.02
    assert 1e-3 < by_name["tflite-dynamic_wi8_afp32"]["logit_rel_diff"] < 0.5


def test_predictions_and_confusion_are_those_of_the_models(
    evaluated: tuple[Path, dict[str, dict[str, float]]], every_artifact: list[Artifact], toy_split: Split
) -> None:
    folder, metrics = evaluated
    table = pq.read_table(folder / "results/predictions.parquet").to_pydict()
    assert list(table) == ["text_index", "label", *(artifact.name for artifact in every_artifact)]
    assert table["label"] == toy_split.targets.tolist()
    for name, figures in metrics.items():
        right = np.mean(np.array(table[name]) == toy_split.targets)
        assert right == pytest.approx(figures["accuracy"])
    chosen_by = pq.read_table(folder / "results/valid_predictions.parquet").to_pydict()
    assert list(chosen_by) == list(table)
    for name, figures in metrics.items():
        assert chosen_by[name] == table[name][::2]
        right = np.mean(np.array(chosen_by[name]) == np.array(chosen_by["label"]))
        assert right == pytest.approx(figures["valid_accuracy"])
    lines = (folder / "plots/confusion.csv").read_text().splitlines()
    assert lines[0] == "actual,predicted"
    assert len(lines) == len(toy_split) + 1


def test_logits_do_not_depend_on_batching(every_artifact: list[Artifact], toy_split: Split) -> None:
    texts = [*toy_split.texts[:5], "apple", " ".join(["red"] * 40), toy_split.texts[-1]]
    for artifact in every_artifact:
        runtime = open_runtime(artifact)
        together = run_texts(artifact, runtime, texts, LENGTH)
        alone = np.concatenate([run_texts(artifact, runtime, [text], LENGTH) for text in texts])
        tolerance = 2e-2 if artifact.card.precision == "fp16" else 1e-4
        np.testing.assert_allclose(together, alone, atol=tolerance, err_msg=artifact.name)


def test_a_static_model_reads_no_more_tokens_than_the_trained_one(
    student: Artifact, tflite: Artifact, toy_split: Split, tmp_path: Path
) -> None:
    texts = [" ".join([text] * 3) for text in toy_split.texts]
    cards = [copy_artifact(artifact, tmp_path / artifact.name, max_length=6) for artifact in (student, tflite)]
    ours, static = (run_texts(artifact, open_runtime(artifact), texts, LENGTH) for artifact in cards)
    assert np.abs(ours - static).max() < 1e-4


def test_a_multi_label_task_is_scored_by_whole_rows(
    teacher: Artifact, student: Artifact, onnx: Artifact, toy_split: Split, tmp_path: Path
) -> None:
    artifacts = [
        copy_artifact(artifact, tmp_path / artifact.name, "multi_label") for artifact in (teacher, student, onnx)
    ]
    targets = np.eye(3, dtype=np.float32)[toy_split.targets]
    split = Split(toy_split.texts, targets)
    metrics = evaluate_artifacts(PARAMS, artifacts, split, half(split), tmp_path / "r", tmp_path / "p")
    runtime = open_runtime(student)
    over_half = run_texts(student, runtime, toy_split.texts, LENGTH) > 0
    assert metrics["student"]["accuracy"] == pytest.approx(np.mean((over_half == targets).all(axis=1)))
    table = pq.read_table(tmp_path / "r/predictions.parquet").to_pydict()
    assert table["label"] == [[label] for label in toy_split.targets]
    assert table["student"] == [np.flatnonzero(row).tolist() for row in over_half]


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("Mul", 0.0, "onnx-broken has accuracy 0.333 .* it predicts one class for every row"),
        ("Mul", -1.0, "onnx-broken has accuracy 0.000 where the student has 1.000: it is near chance"),
        ("Mul", math.inf, "onnx-broken gives NaN or infinite logits for 192 of 192 rows, first row 0"),
    ],
)
def test_a_broken_artifact_is_named(
    kind: str, value: float, message: str, teacher: Artifact, student: Artifact, onnx: Artifact, toy_split: Split,
    tmp_path: Path,
) -> None:  # fmt: skip
    broken = add_node(onnx, tmp_path / "broken", "onnx-broken", kind, value)
    with pytest.raises(ProofError, match=message):
        evaluate_artifacts(
            PARAMS, [teacher, student, onnx, broken], toy_split, toy_split, tmp_path / "r", tmp_path / "p"
        )
    assert not (tmp_path / "r").exists()


def test_other_classes_are_refused(
    teacher: Artifact, student: Artifact, onnx: Artifact, toy_split: Split, tmp_path: Path
) -> None:
    other = copy_artifact(onnx, tmp_path / "other", name="onnx-other")
    (other.folder / "labels.json").write_text('{"labels": ["x", "y", "z"], "problem_type": "single_label"}')
    with pytest.raises(ProofError, match="the classes of onnx-other are not those of the student"):
        evaluate_artifacts(PARAMS, [teacher, student, other], toy_split, toy_split, tmp_path / "r", tmp_path / "p")


def test_the_first_two_must_be_teacher_and_student(
    student: Artifact, onnx: Artifact, toy_split: Split, tmp_path: Path
) -> None:
    with pytest.raises(ProofError, match="do not start with teacher and student"):
        evaluate_artifacts(PARAMS, [student, onnx], toy_split, toy_split, tmp_path / "r", tmp_path / "p")

"""Accuracy, calibration and logit difference of every artifact on the test and validation splits."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.data.dataset import LabelSet, Split, read_labels
from pocketbert.errors import ProofError
from pocketbert.numerics.agreement import decision_agreement
from pocketbert.numerics.logits import compare_logits
from pocketbert.params import EvaluateParams
from pocketbert.partition.fit import fit_memory, local_memory_limit_mb, memory_refusal
from pocketbert.runtimes.confusion import confusion_pairs, most_confused, write_confusion
from pocketbert.runtimes.engines import open_runtime
from pocketbert.runtimes.metrics import predictions, score_logits
from pocketbert.runtimes.rows import row_length, run_texts
from pocketbert.runtimes.sizes import size_columns
from pocketbert.stage import Metrics

TEACHER, STUDENT = "teacher", "student"
# The confusion that is plotted is that of the artifact that would be shipped, else the student's.
_SHIPPED = "tflite-dynamic_wi8_afp32"
_HEADLINE = (
    "accuracy", "macro_f1", "ece", "accuracy_drop", "valid_accuracy", "valid_accuracy_drop", "logit_rel_diff",
    "agreement", "size_bytes",
)  # fmt: skip
# A student at least this far above the majority class has learnt something that an artifact can lose.
_LEARNT_MARGIN = 0.1

_log = logging.getLogger("pocketbert")
_Logits = NDArray[np.float32]
_Row = dict[str, Any]


def evaluate_artifacts(
    params: EvaluateParams, artifacts: list[Artifact], test: Split, valid: Split, results: Path, plots: Path
) -> Metrics:
    """Run every artifact over the test and validation splits; the teacher comes first, the student second.

    Writes evaluate.json (a row an artifact), predictions.parquet and valid_predictions.parquet (a column an artifact)
    into `results` and confusion.csv into `plots`. Figures are of the test split, those named `valid_...` of the
    validation split: what is shipped is chosen by them alone. `accuracy_drop` is in percentage points against the
    teacher; logit differences are against the student in torch, and null for the two torch models themselves. Raises
    ProofError where an artifact gives NaN, a constant class or hardly more than chance, and where the artifacts'
    classes differ.
    """
    labels = _common_labels(artifacts)
    rows: list[_Row] = []
    logits: dict[str, _Logits] = {}
    valid_predictions: dict[str, NDArray[np.int64]] = {}
    limit = local_memory_limit_mb()
    for artifact in artifacts:
        # Cut or whole, the logits are the same: this is not a parameter of the stage.
        refusal = memory_refusal(artifact, limit)
        if refusal:
            _log.warning("%s: %s Its accuracy is that of the whole file.", artifact.name, refusal)
        runtime = open_runtime(artifact if refusal else fit_memory(artifact, limit), threads=params.threads)
        logits[artifact.name] = run_texts(artifact, runtime, test.texts, params.sequence_length)
        valid_logits = run_texts(artifact, runtime, valid.texts, params.sequence_length)
        valid_predictions[artifact.name] = predictions(valid_logits, labels.problem_type)
        row = _measure(artifact, logits, rows, test, labels) | _measure_valid(
            artifact, valid_logits, rows, valid, labels
        )
        row |= {
            "sequence_length": row_length(artifact.card, params.sequence_length),
            "runtime": runtime.name,
            **size_columns(artifact),
        }
        runtime.close()
        rows.append(row)
        _log.info("%s: accuracy %.4f, drop %+.2f points", artifact.name, row["accuracy"], row["accuracy_drop"])
    _write(rows, results)
    test_predictions = {name: predictions(values, labels.problem_type) for name, values in logits.items()}
    _write_predictions(test_predictions, test, results / "predictions.parquet")
    _write_predictions(valid_predictions, valid, results / "valid_predictions.parquet")
    plots.mkdir(parents=True, exist_ok=True)
    shipped = test_predictions.get(_SHIPPED, test_predictions[STUDENT])
    write_confusion(most_confused(confusion_pairs(labels, test.targets, shipped)), plots / "confusion.csv")
    return {row["artifact"]: {key: row[key] for key in _HEADLINE} for row in rows}


def _common_labels(artifacts: list[Artifact]) -> LabelSet:
    names = [artifact.name for artifact in artifacts]
    if names[:2] != [TEACHER, STUDENT] or len(set(names)) != len(names):
        raise ProofError(
            f"artifacts {names} do not start with {TEACHER} and {STUDENT}, or a name comes twice",
            "Build the models again: `dvc repro`.",
        )
    labels = read_labels(artifacts[1].folder)
    for artifact in artifacts:
        if read_labels(artifact.folder) != labels:
            raise ProofError(
                f"the classes of {artifact.name} are not those of the student",
                f"Build {artifact.folder} again from the same data set: `dvc repro`.",
            )
    return labels


def _measure(artifact: Artifact, logits: dict[str, _Logits], rows: list[_Row], test: Split, labels: LabelSet) -> _Row:
    """The row of one artifact; `logits` holds its own and those of the artifacts before it."""
    own = logits[artifact.name]
    score = score_logits(_finite(artifact, own), test.targets, labels.problem_type)
    compared: _Row = {"logit_max_abs_diff": None, "logit_rel_diff": None, "agreement": None}
    if artifact.name not in (TEACHER, STUDENT):
        student_accuracy = rows[1]["accuracy"]
        _require_better_than_chance(artifact, own, score.accuracy, student_accuracy, test, labels)
        try:
            comparison = compare_logits(logits[STUDENT], own)
        except ProofError as error:
            raise ProofError(f"{artifact.name}: {error.cause}", error.fix) from error
        compared = {
            "logit_max_abs_diff": comparison.max_abs_diff,
            "logit_rel_diff": comparison.max_rel_diff,
            "agreement": decision_agreement(
                logits[STUDENT], own, multi_label=labels.problem_type == "multi_label"
            ).all_rows,
        }
    teacher_accuracy = rows[0]["accuracy"] if rows else score.accuracy
    return {
        "artifact": artifact.name,
        "format": artifact.card.format,
        "recipe": artifact.card.recipe,
        "precision": artifact.card.precision,
        "md5": artifact.md5(),
        "size_bytes": artifact.size_bytes,
        "rows": len(test),
        **asdict(score),
        "accuracy_drop": 100 * (teacher_accuracy - score.accuracy),
        **compared,
    }


def _measure_valid(artifact: Artifact, logits: _Logits, rows: list[_Row], valid: Split, labels: LabelSet) -> _Row:
    """What choosing needs to know of one artifact; `rows` are those of the artifacts before it."""
    accuracy = score_logits(_finite(artifact, logits), valid.targets, labels.problem_type).accuracy
    teacher_accuracy = rows[0]["valid_accuracy"] if rows else accuracy
    return {
        "valid_rows": len(valid),
        "valid_accuracy": accuracy,
        "valid_accuracy_drop": 100 * (teacher_accuracy - accuracy),
    }


def _finite(artifact: Artifact, logits: _Logits) -> _Logits:
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise ProofError(
            f"{artifact.name} gives NaN or infinite logits for {len(bad)} of {len(logits)} rows, first row {bad[0]}",
            "fp16 overflows beyond 65504: look at mask_value, or keep the op that overflows in fp32.",
        )
    return logits


def _require_better_than_chance(
    artifact: Artifact, logits: _Logits, accuracy: float, student_accuracy: float, test: Split, labels: LabelSet
) -> None:
    """Refuse an artifact that lost what the student knows: a constant class, or about the majority's share."""
    _, counts = np.unique(test.targets, axis=0, return_counts=True)
    majority = counts.max() / len(test)
    predicted = np.unique(predictions(logits, labels.problem_type), axis=0)
    learnt = student_accuracy - majority >= _LEARNT_MARGIN
    limit = min(1.5 * majority, (majority + student_accuracy) / 2)
    if learnt and (len(predicted) == 1 or accuracy <= limit):
        what = "predicts one class for every row" if len(predicted) == 1 else f"is near chance ({majority:.3f})"
        raise ProofError(
            f"{artifact.name} has accuracy {accuracy:.3f} where the student has {student_accuracy:.3f}: it {what}",
            "Its conversion or recipe broke the model; change the recipe's options or drop it from quantize.recipes.",
        )


def _write(rows: list[_Row], results: Path) -> None:
    results.mkdir(parents=True, exist_ok=True)
    document = json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False)
    (results / "evaluate.json").write_text(document + "\n", encoding="utf-8")


def _write_predictions(predicted: dict[str, NDArray[np.int64]], split: Split, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"text_index": list(range(len(split))), "label": _classes(split.targets)}
    columns |= {name: _classes(values) for name, values in predicted.items()}
    pq.write_table(pa.table(columns), path)


def _classes(targets: NDArray[Any]) -> list[Any]:
    """Class indices, or lists of them for a multi-label task."""
    return targets.tolist() if targets.ndim == 1 else [np.flatnonzero(row).tolist() for row in targets]

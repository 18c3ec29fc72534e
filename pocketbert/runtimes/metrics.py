"""Accuracy, macro F1 and calibration of logits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketbert.data.dataset import ProblemType

CALIBRATION_BINS = 15
# A label of a multi-label task is predicted from this probability on.
THRESHOLD = 0.5


@dataclass(frozen=True)
class Score:
    """How well logits predict targets; all figures are shares in [0, 1]."""

    # Multi-label: subset accuracy, a row counts when all its labels are right.
    accuracy: float
    # Mean over the classes that are present or predicted; a class that is never found counts 0.
    macro_f1: float
    # Expected calibration error.
    ece: float


def probabilities(logits: NDArray[np.floating], problem_type: ProblemType) -> NDArray[np.float64]:
    """Softmax over the classes, or a sigmoid a class for a multi-label task: [rows, classes]."""
    from scipy.special import expit, softmax

    wide = logits.astype(np.float64)
    return np.asarray(softmax(wide, axis=1) if problem_type == "single_label" else expit(wide))


def predictions(logits: NDArray[np.floating], problem_type: ProblemType) -> NDArray[np.int64]:
    """Predicted targets, in the targets' own form: indices [rows], or 0/1 [rows, classes] for a multi-label task."""
    if problem_type == "single_label":
        return logits.argmax(axis=1).astype(np.int64)
    return (probabilities(logits, problem_type) > THRESHOLD).astype(np.int64)


def expected_calibration_error(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> float:
    """Mean over predictions of |accuracy - confidence| of their bin (Guo et al. 2017, equation 3).

    `confidence` in [0, 1] and `correct` are [predictions]; bins of equal width, closed on the right.
    """
    if len(confidence) == 0:
        raise ValueError("no predictions")
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(index, weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def score_logits(logits: NDArray[np.floating], targets: NDArray[np.number], problem_type: ProblemType) -> Score:
    """Score logits [rows, classes] against targets (indices [rows], or 0/1 [rows, classes]).

    For a multi-label task each class of each row is one binary prediction of the calibration error, with the
    confidence max(p, 1 - p).
    """
    from sklearn.metrics import accuracy_score, f1_score

    predicted = predictions(logits, problem_type)
    probability = probabilities(logits, problem_type)
    actual = targets.astype(np.int64)
    if problem_type == "single_label":
        confidence = probability.max(axis=1)
    else:
        confidence = np.maximum(probability, 1.0 - probability).ravel()
    return Score(
        accuracy=float(accuracy_score(actual, predicted)),
        macro_f1=float(f1_score(actual, predicted, average="macro", zero_division=0)),
        ece=expected_calibration_error(confidence, (predicted == actual).ravel()),
    )

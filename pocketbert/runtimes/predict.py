"""Classify texts with any built artifact."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pocketbert.artifacts import read_artifact
from pocketbert.data.dataset import read_labels
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import CheckpointError, DataError
from pocketbert.partition.fit import fit_memory
from pocketbert.runtimes.engines import open_runtime
from pocketbert.runtimes.metrics import THRESHOLD, probabilities
from pocketbert.runtimes.rows import row_length


@dataclass(frozen=True)
class Prediction:
    """Labels with their probabilities, likeliest first, and the time of the model's run alone."""

    text: str
    labels: tuple[tuple[str, float], ...]
    run_ms: float


class TextClassifier:
    """An artifact that is ready to run; a context manager."""

    def __init__(self, folder: Path, threads: int = 1, max_memory_mb: float | None = None) -> None:
        """Load the artifact, in parts where it needs more than `max_memory_mb` whole (pocketbert/partition).

        It is run once, so that no later timing holds the first run's set-up.
        """
        artifact = read_artifact(folder)
        self.labels = read_labels(folder)
        self._max_length = row_length(artifact.card, artifact.card.max_length)
        self._encoder = TextEncoder(folder)
        self._runtime = open_runtime(fit_memory(artifact, max_memory_mb), threads=threads)
        logits = self._runtime.run(self._encoder.encode([""], self._max_length))
        if logits.shape[1] != len(self.labels):
            raise CheckpointError(
                f"{folder} has {len(self.labels)} labels, but its model tells {logits.shape[1]} classes apart",
                "The files are of different models; build them again: `dvc repro`.",
            )

    def classify(self, texts: Iterable[str], top_k: int = 1) -> Iterator[Prediction]:
        """Yield a prediction a text, one at a time.

        Single-label: the `top_k` likeliest labels. Multi-label: all labels of a probability over 0.5, maybe none.
        Raises DataError for a text that is not Unicode.
        """
        for text in texts:
            batch = self._encoder.encode([_unicode(text)], self._max_length)
            started = time.perf_counter()
            logits = self._runtime.run(batch)
            run_ms = 1000 * (time.perf_counter() - started)
            probability = probabilities(logits, self.labels.problem_type)[0]
            order = (-probability).argsort(kind="stable")
            if self.labels.problem_type == "single_label":
                chosen = order[:top_k]
            else:
                chosen = order[probability[order] > THRESHOLD]
            yield Prediction(text, tuple((self.labels.names[i], float(probability[i])) for i in chosen), run_ms)

    def __enter__(self) -> "TextClassifier":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runtime.close()


def _unicode(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{text!r} is not valid UTF-8", "Give the text in UTF-8 (a UTF-8 locale).") from error
    return text

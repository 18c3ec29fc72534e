"""A source model with fewer word embeddings, proven to be the same model on the tokens of its training text."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact, write_artifact
from pocketbert.data.dataset import LabelSet, Split, read_labels
from pocketbert.data.tokenize import TextEncoder
from pocketbert.errors import ProofError
from pocketbert.numerics.logits import compare_logits
from pocketbert.quantize.vocabulary_shared import rows_of_kept_tokens, seen_tokens
from pocketbert.quantize.vocabulary_table import share_table, trim_table
from pocketbert.quantize.vocabulary_tokens import TokenIds, choose_tokens, same_segmentation, write_tokenizer
from pocketbert.runtimes.engines import open_runtime
from pocketbert.runtimes.metrics import predictions
from pocketbert.runtimes.rows import run_texts

# Rows of equal tokens whose logits must be bit for bit the same.
PROOF_ROWS = 64
# Held-out rows of other tokens that are run to see what these cost; all of them, unless there are more.
CHANGED_ROWS = 512

_log = logging.getLogger("pocketbert")
Record = dict[str, Any]
Item = TypeVar("Item")


@contextmanager
def source_in_use(
    vocabulary: str | int, source: Artifact, train: Split, valid: Split | None, rows: int | None = None
) -> Iterator[tuple[Artifact, Record | None]]:
    """The source itself for a full vocabulary, else as `shared_source` or `trimmed_source` gives it."""
    if vocabulary == "full":
        yield source, None
        return
    if valid is None:
        raise ValueError("a smaller vocabulary needs held-out rows")
    if vocabulary == "shared":
        smaller = shared_source(source, train, valid, rows or 0)
    else:
        smaller = trimmed_source(source, train, valid, vocabulary if isinstance(vocabulary, int) else 0)
    with smaller as (artifact, record):
        yield artifact, record


@contextmanager
def trimmed_source(source: Artifact, train: Split, valid: Split, size: int = 0) -> Iterator[tuple[Artifact, Record]]:
    """The source with its vocabulary trimmed to `train`, in a folder for the time being, and what was proven of it.

    `size` tokens are kept where `train` and the alphabet need fewer; a ParamsError says where they need more.
    Raises ExportError where the tokenizer or the graph is of a kind that cannot be trimmed, ProofError where a
    training row gets other tokens or a row of kept tokens other logits.
    """
    with tempfile.TemporaryDirectory(prefix="pocketbert-") as scratch:
        folder = Path(scratch)
        # Names what is wrong with a file that cannot be run, before it is taken apart.
        open_runtime(source).close()
        kept = choose_tokens(source.folder, train.texts, size)
        write_tokenizer(source.folder, kept, folder)
        _require_equal_tokens(source.folder, folder, kept, train.texts)
        rows = trim_table(source.model_path, folder / source.card.model_file, kept)
        trimmed = write_artifact(folder, source.card, read_labels(source.folder), TextEncoder(folder))
        same = same_segmentation(source.folder, folder, kept, valid.texts)
        yield trimmed, _proven(source, trimmed, (len(kept), rows), train, valid, same)


@contextmanager
def shared_source(source: Artifact, train: Split, valid: Split, rows: int = 0) -> Iterator[tuple[Artifact, Record]]:
    """The source with word embeddings for the tokens of `train` alone; the others share the nearest one's.

    With `rows`, so many tokens have one of their own. The tokenizer stays as it is: every text keeps its tokens.
    Raises ExportError where the graph is of a kind that cannot be changed, ProofError where a row of kept tokens gets
    other logits.
    """
    with tempfile.TemporaryDirectory(prefix="pocketbert-") as scratch:
        folder = Path(scratch)
        open_runtime(source).close()
        seen = seen_tokens(source.folder, train.texts, rows)
        before = share_table(source.model_path, folder / source.card.model_file, seen)
        shared = write_artifact(folder, source.card, read_labels(source.folder), TextEncoder(source.folder))
        same = rows_of_kept_tokens(source.folder, seen, valid.texts)
        yield shared, _proven(source, shared, (len(seen.kept), before), train, valid, same)


def _proven(
    source: Artifact, smaller: Artifact, rows: tuple[int, int], train: Split, valid: Split, same: NDArray[np.bool_]
) -> Record:
    """The record of a smaller table (rows kept, rows before); `same` tells the held-out rows that it cannot change."""
    kept, before = rows
    record: Record = {
        "kept": kept,
        "dropped": before - kept,
        "source_bytes_saved": source.size_bytes - smaller.size_bytes,
        "train_rows_of_equal_tokens": len(train),
        "valid": {"rows": len(valid), "of_equal_tokens": int(same.sum())},
        "proof": prove_equal_logits(source, smaller, [valid.texts[i] for i in np.flatnonzero(same)], train.texts),
    }
    record["valid"] |= _cost(source, smaller, valid, np.flatnonzero(~same))
    _log.info("vocabulary: %d of %d tokens kept, %d rows proven", kept, before, record["proof"]["rows"])
    return record


def headline(record: Record) -> dict[str, float]:
    """The figures of a record that belong among the metrics."""
    return {
        "kept": record["kept"],
        "dropped": record["dropped"],
        "source_bytes_saved": record["source_bytes_saved"],
        "valid_rows_of_other_tokens": record["valid"]["rows"] - record["valid"]["of_equal_tokens"],
        "valid_accuracy_change_points": record["valid"]["accuracy_change_points"],
    }


def _require_equal_tokens(full: Path, trimmed: Path, kept: TokenIds, texts: list[str]) -> None:
    same = same_segmentation(full, trimmed, kept, texts)
    if not same.all():
        raise ProofError(
            f"{int((~same).sum())} training texts have other tokens in the trimmed vocabulary, "
            f"first {texts[int(same.argmin())][:60]!r}",
            "Set `vocabulary: full` for this recipe: this tokenizer cannot be trimmed.",
        )


def prove_equal_logits(source: Artifact, trimmed: Artifact, held_out: list[str], seen: list[str]) -> Record:
    """Raise ProofError unless the logits on texts of kept tokens are bit for bit equal; held-out texts come first."""
    texts = _spread(held_out, PROOF_ROWS)
    texts += _spread(seen, PROOF_ROWS - len(texts))
    reference, candidate = (_logits(artifact, texts) for artifact in (source, trimmed))
    # Raises where the rows do not tell one another apart, so that equality would prove nothing.
    compared = compare_logits(reference, candidate)
    if not np.array_equal(reference, candidate):
        raise ProofError(
            f"the logits of {trimmed.card.model_file} with a smaller vocabulary are {compared.max_abs_diff:.3g} away "
            "from the full one's on rows of kept tokens alone",
            "Set `vocabulary: full` for this recipe, and report this model.",
        )
    return {"rows": len(texts), "held_out_rows": min(len(held_out), PROOF_ROWS), "max_abs_diff": 0.0}


def _cost(source: Artifact, trimmed: Artifact, valid: Split, changed: NDArray[np.intp]) -> Record:
    """Accuracy of both on held-out rows of other tokens, and what it changes over all rows, in percentage points."""
    chosen = np.array(_spread(changed.tolist(), CHANGED_ROWS), dtype=np.intp)
    if not len(chosen):
        return {"run": 0, "accuracy_full": None, "accuracy_trimmed": None, "accuracy_change_points": 0.0}
    labels = read_labels(source.folder)
    texts, targets = [valid.texts[i] for i in chosen], valid.targets[chosen]
    full, trim = (_accuracy(_logits(artifact, texts), targets, labels) for artifact in (source, trimmed))
    change = 100 * (trim - full) * len(changed) / len(valid)
    return {
        "run": len(chosen),
        "accuracy_full": full,
        "accuracy_trimmed": trim,
        "accuracy_change_points": round(change, 4),
    }


def _accuracy(logits: NDArray[np.float32], targets: NDArray[Any], labels: LabelSet) -> float:
    """Share of rows all of whose labels are right."""
    right = predictions(logits, labels.problem_type) == targets
    return float(right.reshape(len(targets), -1).all(axis=1).mean())


def _logits(artifact: Artifact, texts: list[str]) -> NDArray[np.float32]:
    runtime = open_runtime(artifact)
    try:
        return run_texts(artifact, runtime, texts, artifact.card.sequence_length or artifact.card.max_length)
    finally:
        runtime.close()


def _spread(items: list[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spaced."""
    chosen = np.unique(np.linspace(0, len(items) - 1, num=min(count, len(items))).round().astype(int))
    return [items[i] for i in chosen]

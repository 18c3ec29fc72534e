"""From any supported source to train, valid and test Parquet files, labels.json and a data report."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pocketbert.data.clean import (
    Row,
    class_order,
    clean_table,
    contradictions,
    drop_known,
    drop_repeats,
    is_multi_label,
)
from pocketbert.data.columns import Columns, choose_columns
from pocketbert.data.dataset import SPLITS, LabelSet, Split, write_labels, write_split
from pocketbert.data.load import load_tables
from pocketbert.data.split import stratified_split
from pocketbert.data.table import WHOLE, Table
from pocketbert.errors import DataError
from pocketbert.params import PrepareParams
from pocketbert.stage import Metrics

# How many contradictory texts the report quotes.
_EXAMPLES = 20


def prepare_dataset(params: PrepareParams, folder: Path) -> Metrics:
    """Write {train,valid,test}.parquet, labels.json and report.json into `folder`; return the counts.

    Nothing is written before the whole data set has been found usable; raises DataError.
    """
    tables = load_tables(params)
    columns = choose_columns(tables, params)
    dropped: Counter[str] = Counter()
    separator = params.label_separator
    cleaned = {split: clean_table(table, columns, separator, dropped) for split, table in tables.items()}
    for split, rows in cleaned.items():
        if not rows:
            raise DataError(
                f"{tables[split].source} holds no row with both a text ({columns.text!r}) and a label "
                f"({columns.label!r})",
                "Check prepare.text_column and prepare.label_column.",
            )
    conflicts = contradictions(cleaned)
    splits = _split(cleaned, params, dropped)
    labels = LabelSet(
        tuple(class_order(splits["train"], tables.values(), columns)),
        "multi_label" if is_multi_label(tables.values(), columns, separator) else "single_label",
    )
    _check(splits, labels, columns, tables)
    report = _report(params, tables, columns, splits, labels, dropped, conflicts)
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        write_split(_encode(rows, labels), folder / f"{split}.parquet")
    write_labels(labels, folder)
    (folder / "report.json").write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return {
        **{f"rows_{split}": len(rows) for split, rows in splits.items()},
        "classes": len(labels),
        **{f"dropped_{reason}": dropped[reason] for reason in _REASONS},
        "conflicting_texts": len(conflicts),
    }


_REASONS = ("missing_text", "missing_label", "repeated", "duplicate_in_train", "duplicate_in_valid")


def _split(cleaned: Mapping[str, list[Row]], params: PrepareParams, dropped: Counter[str]) -> dict[str, list[Row]]:
    """Draw the splits that are not given, then take texts of test out of valid and of both out of train."""
    fractions = {"test": params.test_fraction, "valid": params.valid_fraction}
    missing = [split for split in fractions if split not in cleaned]
    splits = dict(cleaned)
    if missing:
        pool = splits.pop(WHOLE) if WHOLE in splits else splits["train"]
        # Repeats would straddle the splits that are drawn, and be lost to train again.
        kept = drop_repeats(pool)
        dropped["repeated"] += len(pool) - len(kept)
        known = [rows for split, rows in splits.items() if split != "train"]
        fresh = drop_known(kept, *known)
        dropped["duplicate_in_train"] += len(kept) - len(fresh)
        splits["train"], drawn = stratified_split(fresh, [fractions[s] for s in missing], params.seed)
        splits |= dict(zip(missing, drawn, strict=True))
    valid = drop_known(splits["valid"], splits["test"])
    train = drop_known(splits["train"], valid, splits["test"])
    dropped["duplicate_in_valid"] += len(splits["valid"]) - len(valid)
    dropped["duplicate_in_train"] += len(splits["train"]) - len(train)
    return dict(zip(SPLITS, (train, valid, splits["test"]), strict=True))


def _check(
    splits: Mapping[str, Sequence[Row]], labels: LabelSet, columns: Columns, tables: Mapping[str, Table]
) -> None:
    """Raise DataError for what no classifier can be trained or judged on."""
    source = ", ".join(table.source for table in tables.values())
    for split, rows in splits.items():
        if not rows:
            raise DataError(
                f"no row of {split} is left: each of its texts is in another split too",
                "Give splits that do not share their texts.",
            )
        unseen = sorted({label for row in rows for label in row.labels} - set(labels.names))
        if unseen:
            more = f" and {len(unseen) - 10} more" if len(unseen) > 10 else ""
            raise DataError(
                f"labels in {split} that train does not have: {', '.join(unseen[:10])}{more}",
                f"Correct their spelling, add training rows for them, or remove their rows from {split}.",
            )
    if len(labels) < 2:
        raise DataError(
            f"{source}: the label column {columns.label!r} holds a single class ({', '.join(labels.names)})",
            "Give rows of two classes or more, or set prepare.label_column to another column.",
        )


def _encode(rows: Sequence[Row], labels: LabelSet) -> Split:
    index = {name: i for i, name in enumerate(labels.names)}
    texts = [row.text for row in rows]
    if labels.problem_type == "single_label":
        return Split(texts, np.array([index[row.labels[0]] for row in rows], dtype=np.int64))
    targets = np.zeros((len(rows), len(labels)), dtype=np.float32)
    for i, row in enumerate(rows):
        targets[i, [index[label] for label in row.labels]] = 1.0
    return Split(texts, targets)


def _report(
    params: PrepareParams,
    tables: Mapping[str, Table],
    columns: Columns,
    splits: Mapping[str, Sequence[Row]],
    labels: LabelSet,
    dropped: Counter[str],
    conflicts: Mapping[str, list[str]],
) -> dict[str, object]:
    """What report.json says; lengths are in characters."""
    counts = {split: Counter(label for row in rows for label in row.labels) for split, rows in splits.items()}
    folded = Counter(name.casefold() for name in labels.names)
    quantiles = {"p05": 0.05, "p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {
        "source": {split: table.source for split, table in tables.items()},
        "columns": {"text": columns.text, "label": columns.label, "label_separator": params.label_separator},
        "problem_type": labels.problem_type,
        "rows_read": sum(len(table) for table in tables.values()),
        "rows": {split: len(rows) for split, rows in splits.items()},
        "classes": {name: {split: counts[split][name] for split in splits} for name in labels.names},
        "dropped": {reason: dropped[reason] for reason in _REASONS},
        "conflicting_texts": {"count": len(conflicts), "examples": dict(list(conflicts.items())[:_EXAMPLES])},
        "classes_that_differ_in_case_only": [name for name in labels.names if folded[name.casefold()] > 1],
        "text_length_chars": {
            split: {name: int(np.quantile([len(row.text) for row in rows], q)) for name, q in quantiles.items()}
            for split, rows in splits.items()
        },
    }

"""The part of `pocketbert compare` that is about masked-language models."""

import json
from pathlib import Path

import typer

from pocketbert.errors import ParamsError
from pocketbert.export.task import TASKS


def compares_masked(task: str, a: Path, b: Path) -> bool:
    """Whether the task is fill-mask: as named or, for "auto", by A or B; raises ParamsError for an unknown task."""
    if task == "auto":
        from pocketbert.comparison.fill_mask_side import is_fill_mask

        return is_fill_mask(a) or is_fill_mask(b)
    if task not in TASKS:
        raise ParamsError(f"there is no task {task!r}", f"Known: {', '.join(TASKS)}.")
    return task == "fill-mask"


def print_masked(
    a: Path,
    b: Path,
    data: Path,
    tokenizer: Path | None,
    text_column: str | None,
    rows: int,
    limit: float | None,
    as_json: bool,
) -> None:
    """Compare, print and, where there is a limit, check it; raises like `compare_masked`."""
    from pocketbert.comparison.fill_mask import compare_masked
    from pocketbert.comparison.fill_mask_text import as_text

    found = compare_masked(a, b, data, tokenizer=tokenizer, text_column=text_column, rows=rows)
    typer.echo(json.dumps(found.as_dict(), ensure_ascii=False, indent=1) if as_json else as_text(found))
    if limit is not None:
        found.check(limit)

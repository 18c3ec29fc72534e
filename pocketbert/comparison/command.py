"""`pocketbert compare A B --data rows.csv`."""

import json
from pathlib import Path
from typing import Annotated

import typer


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The reference: an artifact's folder, .onnx or .tflite.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The model that is compared with it.")],
    data: Annotated[Path, typer.Option(help="CSV, TSV, Parquet or JSON with a column of text.")],
    tokenizer: Annotated[Path | None, typer.Option(help="Folder with tokenizer.json (default: A's, then B's).")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of text (default: found by name).")] = None,
    rows: Annotated[int, typer.Option(min=2, help="Rows used at most, evenly spaced.")] = 256,
    limit: Annotated[
        float | None, typer.Option(min=0.0, help="Exit code 7 beyond this difference, relative to A's spread.")
    ] = None,
    layers: Annotated[bool, typer.Option(help="Compare the hidden states layer by layer too.")] = True,
    task: Annotated[str, typer.Option(help="text-classification or fill-mask (default: by the models.)")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Compare the logits and the layers of two models on the same rows, of any format and origin.

    Inputs are matched by name, or by order where names say nothing; what was assumed is printed. Beside the rows
    of the data, rows with asymmetric masks and token types are run.
    """
    from pocketbert.comparison.fill_mask_command import compares_masked, print_masked

    if compares_masked(task, a, b):
        print_masked(a, b, data, tokenizer, text_column, rows, limit, as_json)
        return
    from pocketbert.comparison.compare import compare_files
    from pocketbert.comparison.text import as_text

    comparison = compare_files(
        a, b, data, tokenizer=tokenizer, text_column=text_column, rows=rows, layers=layers, limit=limit
    )
    typer.echo(json.dumps(comparison.as_dict(), ensure_ascii=False, indent=1) if as_json else as_text(comparison))
    if limit is not None:
        comparison.check(limit)

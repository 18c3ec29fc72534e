"""`pocketbert scan FILE --data rows.csv`."""

import json
from pathlib import Path
from typing import Annotated

import typer


def scan(
    file: Annotated[Path, typer.Argument(help="A .tflite or .onnx file, or the folder of a model.")],
    data: Annotated[Path, typer.Option(help="CSV, TSV, Parquet or JSON with a column of text.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder with tokenizer.json (default: beside the file).")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of text (default: found by name).")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows used at most, evenly spaced.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Run a model on real rows and say which of its tensors and constants half precision (fp16) cannot hold, and why.

    Beside the rows of the data the longest ones, rows with asymmetric masks and one fully padded row are run. Exit
    code 1 where something is unsafe in fp16, or where the file as it is makes a NaN or an infinity.
    """
    from pocketbert.scan.scan import scan_file
    from pocketbert.scan.text import as_text

    found = scan_file(file, data, tokenizer=tokenizer, text_column=text_column, rows=rows)
    typer.echo(json.dumps(found.as_dict(), ensure_ascii=False, indent=1) if as_json else as_text(found))
    if not found.safe:
        raise typer.Exit(1)

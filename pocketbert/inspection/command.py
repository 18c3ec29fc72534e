"""`pocketbert inspect FILE`."""

import json
from pathlib import Path
from typing import Annotated

import typer


def inspect(
    file: Annotated[Path, typer.Argument(help="A .tflite or .onnx file, or the folder of a model.")],
    runtime: Annotated[
        str | None,
        typer.Option(help="Runtime that must run it: a version of TFLite or ONNX Runtime such as 2.13, or a device."),
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option(min=1, help="Number of token ids (default: of the tokenizer beside the file).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Say what a model file holds and asks for, without running it.

    Exit code 1 where the runtime is too old for an operator, a lookup can run out of bounds, or random numbers are
    drawn.
    """
    from pocketbert.inspection.inspect import inspect_file
    from pocketbert.inspection.text import as_text

    inspection = inspect_file(file, runtime=runtime, vocabulary=vocab_size)
    typer.echo(json.dumps(inspection.as_dict(), ensure_ascii=False, indent=1) if as_json else as_text(inspection))
    if not inspection.fine:
        raise typer.Exit(1)

"""`pocketbert export FOLDER --output FILE`."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    folder: Annotated[Path, typer.Argument(help="Folder of save_pretrained, or of a torch artifact.")],
    output: Annotated[Path, typer.Option(help="The .onnx or .tflite file to write.")],
    task: Annotated[str, typer.Option(help="fill-mask or text-classification (default: by config.json).")] = "auto",
    mask_value: Annotated[float, typer.Option(max=0.0, help="Added to the scores of padded positions.")] = -1e4,
    stock_mask: Annotated[bool, typer.Option("--stock-mask", help="Keep transformers' mask of -3.4e38.")] = False,
    opset: Annotated[int, typer.Option(min=11, max=21, help="ONNX operator set.")] = 17,
    sequence_length: Annotated[int, typer.Option(min=2, help="Tokens of a .tflite file's static input.")] = 128,
) -> None:
    """Export a masked-language model or a classifier to ONNX or TFLite, outside the pipeline.

    The tokenizer is copied beside the file where none is there, so that `compare` and `scan` find it.
    """
    from pocketbert.export.single import export_file

    mask = None if stock_mask else mask_value
    typer.echo(export_file(folder, output, task, mask, opset, sequence_length))

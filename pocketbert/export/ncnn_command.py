"""`pocketbert ncnn FOLDER --output FOLDER --data rows.csv`."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pocketbert.errors import ParamsError

if TYPE_CHECKING:
    from pocketbert.export.ncnn_proof import NcnnRun


def ncnn(
    classifier: Annotated[Path, typer.Argument(help="Folder of a torch artifact, such as models/classifier.")],
    data: Annotated[Path, typer.Option(help="CSV, TSV, Parquet or JSON with a column of text, to prove it on.")],
    output: Annotated[Path, typer.Option(help="Folder to write; must not exist.")] = Path("models/ncnn"),
    sequence_length: Annotated[int, typer.Option(min=2, help="Tokens of the static input.")] = 128,
    mask_value: Annotated[float, typer.Option(max=0.0, help="Added to the scores of padded positions.")] = -1e4,
    text_column: Annotated[str | None, typer.Option(help="Column of text (default: by its name).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Convert a classifier to ncnn (Vulkan, where a board has no LiteRT GPU), and prove it on the CPU and the GPU.

    Needs the extra `ncnn`. The result is an artifact as any other: `pocketbert predict --model models/ncnn`.
    """
    if output.exists():
        raise ParamsError(f"{output} exists", "Name another folder with --output, or remove it.")
    from pocketbert.comparison.rows import read_texts
    from pocketbert.export.ncnn import export_ncnn
    from pocketbert.export.ncnn_proof import prove_ncnn

    texts = read_texts(data, text_column, 1000).texts
    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, and renamed when it is proven: nothing unproven is left behind.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
        folder = Path(scratch, output.name)
        size = export_ncnn(classifier, folder, sequence_length=sequence_length, mask_value=mask_value).size_bytes
        runs = prove_ncnn(classifier, folder, texts)
        folder.rename(output)
    if as_json:
        typer.echo(json.dumps({"folder": str(output), "size_bytes": size, "runs": [asdict(r) for r in runs]}, indent=1))
        return
    typer.echo(f"{output}: {sequence_length} tokens, {size:,} bytes")
    typer.echo("\n".join(line for run in runs for line in _lines(run)))


def _lines(run: "NcnnRun") -> list[str]:
    where = f"{run.accelerator} {run.precision}"
    if run.comparison is None or run.placement is None:
        return [f"{where}   not run: no Vulkan driver was found"]
    lines = [f"{where}   {run.comparison.max_rel_diff:.1e} of the spread from torch, over {run.comparison.rows} rows"]
    placed = run.placement
    if placed.adapter:
        software = " (software: for proofs, not for times)" if placed.software else ""
        lines.append(f"           {placed.delegated} of {placed.total} layers on {placed.adapter}{software}")
        lines += [f"           {reason}" for reason in placed.refused]
    return lines

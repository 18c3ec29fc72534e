"""`pocketbert delegation FILE`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from pocketbert.errors import DeviceError, ParamsError

if TYPE_CHECKING:
    from pocketbert.delegation.measure import Rows


def delegation(
    file: Annotated[Path, typer.Argument(help="A .tflite file, or the folder of a TFLite artifact.")],
    profile: Annotated[str, typer.Option(help="Rules: litert-2.3, or tflite-android-2.x.")] = "litert-2.3",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or fp16_sums_fp32, in which the GPU computes.")] = "fp32",
    predict: Annotated[bool, typer.Option("--predict", help="Ask the rules alone; run nothing.")] = False,
    timeout_s: Annotated[float, typer.Option(min=1.0, help="Limit of each run; a driver may hang.")] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Say which operators a GPU takes and why it refuses others, by rule and by running it on this machine's GPU.

    What the GPU computes is compared with the CPU: a model can be on the GPU whole, and wrong. A profile of delegates
    that are not here (tflite-android-2.x) only predicts. Exit code 1 where an operator is refused or the result is not
    the CPU's; 9 where the rules refuse none and there is no GPU to ask, or where its driver crashes or hangs.
    """
    from pocketbert.delegation.analyze import analyze, find_profile
    from pocketbert.delegation.text import as_text
    from pocketbert.params.delegation import Precision

    known: dict[str, Precision] = {name: name for name in get_args(Precision)}
    if precision not in known:
        raise ParamsError(f"precision {precision!r} is unknown", f"Known: {', '.join(known)}.")
    path, rules = model_file(file), find_profile(profile)
    rows = None if predict or not rules.measurable else project_rows(file)
    found = analyze(path, rules, precision=known[precision], ask_gpu=not predict, rows=rows, timeout_s=timeout_s)
    typer.echo(json.dumps(found.as_dict(), indent=1, allow_nan=False) if as_json else as_text(found))
    if found.missing and found.whole:
        raise DeviceError("by the rules it is whole, but there is no GPU to ask", "`--predict` asks the rules alone.")
    if any(measured.error for measured in found.measurements):
        raise typer.Exit(DeviceError.exit_code)
    if not found.whole:
        raise typer.Exit(1)


def project_rows(file: Path) -> "Rows | None":
    """Real rows for an artifact's folder in a project whose data is prepared; else None."""
    prepared = Path("data/prepared")
    if not (file / "artifact.json").is_file() or not (prepared / "valid.parquet").is_file():
        return None
    from pocketbert.artifacts import read_artifact
    from pocketbert.data.dataset import read_labels, read_split
    from pocketbert.delegation.rows import MADE_UP, real_rows

    texts = read_split(prepared / "valid.parquet", read_labels(prepared)).texts
    return real_rows(read_artifact(file), texts, MADE_UP)


def model_file(path: Path) -> Path:
    """The .tflite file itself; raises ParamsError where there is none."""
    if path.is_dir():
        from pocketbert.artifacts import read_artifact

        path = read_artifact(path).model_path
    if path.suffix != ".tflite" or not path.is_file():
        raise ParamsError(f"{path} is no .tflite file", "Name one, or the folder of a TFLite artifact.")
    return path

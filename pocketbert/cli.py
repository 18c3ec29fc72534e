"""The command line: `pocketbert predict`, `pocketbert params`, `pocketbert results`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from pocketbert.comparison.command import compare
from pocketbert.delegation.command import delegation
from pocketbert.devices.command import devices_app
from pocketbert.errors import DataError, ParamsError, PocketBertError
from pocketbert.export.command import export
from pocketbert.export.ncnn_command import ncnn
from pocketbert.inspection.command import inspect
from pocketbert.partition.command import memory, partition
from pocketbert.report.latency_command import compare_latency
from pocketbert.scan.command import scan
from pocketbert.tuning.command import tune

if TYPE_CHECKING:
    from pocketbert.runtimes.predict import Prediction

DEFAULT_MODEL = Path("models/quantized/tflite-dynamic_wi8_afp32")
PARAMS = Path("params.yaml")

app = typer.Typer(
    help="Text classification with the models that `dvc repro` builds, and the results of building them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
params_app = typer.Typer(help="Check params.yaml, or merge profiles into it.", no_args_is_help=True)
app.add_typer(params_app, name="params")
app.add_typer(devices_app, name="devices")


def main() -> None:
    """Run the command line; an error that pocketbert can explain is one line and its own exit code."""
    try:
        app()
    except PocketBertError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


@app.command()
def predict(
    text: Annotated[list[str] | None, typer.Option(help="A text; may be given several times.")] = None,
    model: Annotated[Path, typer.Option(help="Folder of a torch, ONNX or TFLite artifact.")] = DEFAULT_MODEL,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the model.")] = 1,
    top_k: Annotated[int, typer.Option(min=1, help="Labels shown a text (single-label models).")] = 1,
    max_memory_mb: Annotated[
        float | None,
        typer.Option(min=1.0, help="Run in parts what needs more (default: the limit of the local device)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """Classify texts given by --text, or read from standard input, a line a text (blank lines are skipped).

    Prints label, probability and milliseconds, separated by tabs. The milliseconds are those of the model's run
    alone, after one warm-up run: neither loading nor tokenization is counted. A multi-label model prints every
    label of a probability over 0.5, or "-" where there is none.
    """
    if not (model / "artifact.json").is_file():
        raise ParamsError(
            f"{model} holds no model", "Run `dvc repro` to build it, or name another folder with --model."
        )
    if text is None and sys.stdin.isatty():
        raise ParamsError("there is nothing to classify", 'Give --text "...", or pipe in a line a text.')

    from pocketbert.partition.fit import local_memory_limit_mb
    from pocketbert.runtimes.predict import TextClassifier

    limit = local_memory_limit_mb() if max_memory_mb is None else max_memory_mb
    with TextClassifier(model, threads, limit) as classifier:
        width = max(map(len, classifier.labels.names))
        texts = iter(text) if text is not None else read_lines(sys.stdin.buffer)
        for prediction in classifier.classify(texts, top_k):
            typer.echo(_as_json(prediction) if as_json else _as_table(prediction, width))
            sys.stdout.flush()


def read_lines(stream: BinaryIO) -> Iterator[str]:
    """The lines of UTF-8 text that are not blank; raises DataError naming the first line that is not UTF-8."""
    for number, line in enumerate(stream, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(
                f"line {number} of standard input is not UTF-8 (byte 0x{line[error.start]:02x})",
                "Convert it first, for instance with `iconv -f latin1 -t utf-8`.",
            ) from error
        if text:
            yield text


def _as_json(prediction: "Prediction") -> str:
    labels = [{"label": name, "probability": round(p, 6)} for name, p in prediction.labels]
    document = {"text": prediction.text, "labels": labels, "run_ms": round(prediction.run_ms, 3)}
    return json.dumps(document, ensure_ascii=False)


def _as_table(prediction: "Prediction", width: int) -> str:
    timing = f"{prediction.run_ms:.2f} ms"
    return "\n".join(
        f"{name:<{width}}\t{f'{p:.4f}' if p is not None else '-':>6}\t{timing}"
        for name, p in prediction.labels or (("-", None),)
    )


@params_app.command("check")
def check_params() -> None:
    """Validate ./params.yaml, the recipes of `quantize` included."""
    from pocketbert.params import load_params
    from pocketbert.quantize.recipes import check_recipes

    check_recipes(load_params(PARAMS).quantize)
    typer.echo(f"{PARAMS} is valid")


@params_app.command("merge")
def merge_params(
    profiles: Annotated[list[Path], typer.Argument(help="YAML files such as profiles/*.yaml; the last one wins.")],
) -> None:
    """Merge profiles into ./params.yaml, keeping its comments; nothing is written unless the result is valid."""
    from pocketbert.profiles import merge_profiles

    merge_profiles(PARAMS, profiles)
    typer.echo(f"{PARAMS} now holds {', '.join(map(str, profiles))}")


@app.command()
def results() -> None:
    """Print the table of results and where the report and the run history are."""
    from pocketbert.results_table import print_results

    print_results(Path("report"))


app.command()(inspect)
app.command()(compare)
app.command()(compare_latency)
app.command()(delegation)
app.command()(export)
app.command()(memory)
app.command()(ncnn)
app.command()(partition)
app.command()(scan)
app.command()(tune)

if __name__ == "__main__":
    main()

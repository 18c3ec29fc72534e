"""How long quantizing takes, how fast a quantized file is, and how accurate it stays.

    python benchmarks/quantization.py time
    python benchmarks/quantization.py speed [--folder .]
    python benchmarks/quantization.py accuracy [--folder .] [--split valid] [--rows 1000]

time: every TFLite recipe on the 24-layer MobileBERT with 64 calibration rows (random weights: time depends on none).
speed: the .tflite files of a finished pipeline in one interleaved run, batch 1, as ratios to its fp32 file.
accuracy: every artifact of a finished pipeline on seeded rows of a split; choose on valid, quote test.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# transformers imports tensorflow by itself when it is installed.
os.environ.setdefault("USE_TF", "0")

from benchmarks.interleaved import measure_interleaved  # noqa: E402
from pocketbert.provenance import processor_name  # noqa: E402

LENGTH, CALIBRATION_ROWS = 128, 64


def show_time(_: argparse.Namespace) -> None:
    """Quantize the 24-layer MobileBERT by every TFLite recipe."""
    import numpy as np

    from benchmarks.conversion import convert_ours
    from pocketbert.quantize.calibration import CalibrationRows
    from pocketbert.quantize.recipes import RECIPES

    ids = np.random.default_rng(13).integers(1000, 30000, (CALIBRATION_ROWS, LENGTH), dtype=np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    print("| recipe | wall s | file MB |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "mobilebert.tflite"), Path(scratch, "quantized.tflite")
        source.write_bytes(convert_ours())
        for name, recipe in RECIPES["tflite"].items():
            # Fresh rows: ranges measured for one recipe are not measured again for the next one.
            rows = CalibrationRows(np.arange(CALIBRATION_ROWS), inputs, digest="random")
            function = recipe.function(name)
            started = time.perf_counter()
            function(source, target, recipe.options(), rows)
            print(f"| {name} | {time.perf_counter() - started:.1f} | {target.stat().st_size / 1e6:.1f} |", flush=True)


def show_speed(arguments: argparse.Namespace) -> None:
    """Median latencies of the .tflite files, as ratios to the fp32 one."""
    folders = [arguments.folder / "models/tflite", *sorted((arguments.folder / "models/quantized").glob("*"))]
    paths = {folder.name: folder / "model.tflite" for folder in folders if (folder / "model.tflite").exists()}
    series = measure_interleaved(paths, rounds=arguments.rounds, runs=30, warmup=5, threads=arguments.threads)
    base = series["tflite"].median_ms
    print("| artifact | file MB | median ms | times faster than fp32 |\n|---|---|---|---|")
    for name, one in series.items():
        size = one.path.stat().st_size / 1e6
        print(f"| {name} | {size:.2f} | {one.median_ms:.2f} | {base / one.median_ms:.2f} |")


def show_accuracy(arguments: argparse.Namespace) -> None:
    """Accuracy on seeded rows, and what changed against the torch student."""
    import numpy as np

    from pocketbert.artifacts import read_artifacts
    from pocketbert.data.dataset import Split, read_labels, read_split
    from pocketbert.runtimes.engines import open_runtime
    from pocketbert.runtimes.metrics import score_logits
    from pocketbert.runtimes.rows import run_texts

    models = arguments.folder / "models"
    labels = read_labels(arguments.folder / "data/prepared")
    rows = read_split(arguments.folder / f"data/prepared/{arguments.split}.parquet", labels)
    if arguments.rows < len(rows.texts):
        chosen = np.sort(np.random.default_rng(13).permutation(len(rows.texts))[: arguments.rows])
        rows = Split([rows.texts[i] for i in chosen], rows.targets[chosen])
    folders = [models / "classifier", models / "teacher", models / "onnx", models / "tflite"]
    folders += sorted((models / "quantized").glob("*"))
    print(f"{len(rows.texts)} rows of {arguments.split}\n")
    print("| artifact | file MB | accuracy | same class as the student |\n|---|---|---|---|", flush=True)
    student = None
    for artifact in read_artifacts(folders):
        runtime = open_runtime(artifact, threads=1)
        logits = run_texts(artifact, runtime, rows.texts, LENGTH)
        runtime.close()
        student = logits if student is None else student
        accuracy = 100 * score_logits(logits, rows.targets, labels.problem_type).accuracy
        same = 100 * np.mean(logits.argmax(axis=1) == student.argmax(axis=1))
        print(f"| {artifact.name} | {artifact.size_bytes / 1e6:.2f} | {accuracy:.2f} | {same:.2f} |", flush=True)


SHOWS: dict[str, Callable[[argparse.Namespace], None]] = {
    "time": show_time,
    "speed": show_speed,
    "accuracy": show_accuracy,
}


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=SHOWS)
    parser.add_argument("--folder", type=Path, default=ROOT, help="a project whose pipeline has run")
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, {processor_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    SHOWS[arguments.what](arguments)
    # LiteRT's destructors are known to crash at interpreter exit; the answer is out.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

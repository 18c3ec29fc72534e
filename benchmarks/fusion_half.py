"""How far fp16 on a GPU is from torch, without fusions, with all, and with all and split_sums.

    python benchmarks/fusion_half.py CLASSIFIER PREPARED [--rows 32] [--length 128] [--graphs none all split]

CLASSIFIER is a torch artifact such as models/classifier, PREPARED a folder with test.parquet such as data/prepared.
Rows are spread over the test split. Prints a line a graph and precision: the largest logit difference to torch's over
the spread of torch's logits, the mean one, and the share of equal decisions. A driver in software serves (in minutes).
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pocketbert.params import FUSIONS, Fusion  # noqa: E402
from pocketbert.runtimes.base import Precision  # noqa: E402

MASK_VALUE = -1e4
GRAPHS: dict[str, tuple[Fusion, ...]] = {"none": (), "all": FUSIONS, "split": (*FUSIONS, "split_sums")}


def main() -> None:
    """Convert, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classifier", type=Path)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--graphs", choices=GRAPHS, nargs="+", default=list(GRAPHS))
    parser.add_argument("--precisions", choices=get_args(Precision), nargs="+", default=get_args(Precision))
    parser.add_argument("--timeout-s", type=float, default=3600)
    arguments = parser.parse_args()
    os.environ.setdefault("USE_TF", "0")
    from pocketbert.data.dataset import read_labels, read_split
    from pocketbert.data.tokenize import TextEncoder
    from pocketbert.export.tflite import convert
    from pocketbert.modeling.checkpoints import load_classifier
    from pocketbert.numerics.logits import compare_logits
    from pocketbert.runtimes.isolated import run_isolated
    from pocketbert.runtimes.torch_runtime import TorchRuntime

    texts = read_split(arguments.prepared / "test.parquet", read_labels(arguments.prepared)).texts
    chosen = [texts[i] for i in np.linspace(0, len(texts) - 1, arguments.rows).astype(int)]
    rows = TextEncoder(arguments.classifier).encode(chosen, arguments.length, pad_to=arguments.length)
    model = load_classifier(arguments.classifier)
    expected = TorchRuntime(model, threads=1).run(rows)
    print(f"{time.strftime('%Y-%m-%d')}, {arguments.classifier}, {arguments.rows} rows of {arguments.length} tokens\n")
    header = ("graph", "precision", "on the GPU", "largest difference / spread", "mean", "same decision")
    print(f"| {' | '.join(header)} |\n{'|---' * len(header)}|", flush=True)
    with tempfile.TemporaryDirectory(prefix="pocketbert-") as scratch:
        path = Path(scratch) / "model.tflite"
        for graph in arguments.graphs:
            path.write_bytes(convert(model, arguments.length, MASK_VALUE, fuse=GRAPHS[graph]))
            inputs = {name: values.astype(np.int32) for name, values in rows.items()}
            for precision in arguments.precisions:
                run = run_isolated(path, inputs, accelerator="gpu", precision=precision, timeout_s=arguments.timeout_s)
                found = compare_logits(expected, run.outputs)
                mean = found.mean_abs_diff / found.spread
                cells = [graph, precision, f"{run.placement.delegated} of {run.placement.total}"]
                cells += [f"{found.max_rel_diff:.2e}", f"{mean:.1e}", f"{found.agreement:.1%}"]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""What each exact fusion of export_tflite saves, and what all of them do to the latency on this CPU.

    python benchmarks/fusion.py [CLASSIFIER] [--rounds 4] [--runs 40] [--ends]

CLASSIFIER is a torch artifact such as models/classifier; without one, MobileBERT of its default configuration (24
layers, random weights: neither operations nor time depend on them). The fusions are added one after another. Operations
are those of the converted file; elementwise operations are elements written by operators that are no product;
intermediate bytes are those of all computed tensors that an operator writes (a RESHAPE writes none).
--ends converts without any and with all of them only. Time: none against all, one thread; in each round a fresh
process runs both files in turns, by the processor's time, which a busy machine disturbs less than the clock's. Only
the ratio counts; its interval is a bootstrap's over the pairs of runs.
"""

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.in_turns import measure_in_turns, ratio_of_medians  # noqa: E402
from pocketbert.params import FUSIONS  # noqa: E402
from pocketbert.provenance import processor_name  # noqa: E402

if TYPE_CHECKING:
    from pocketbert.delegation.operators import Operator
    from pocketbert.modeling.classifier import PocketBertClassifier

LENGTH, MASK_VALUE = 128, -1e4
NONE = "none"


@dataclass(frozen=True)
class Cost:
    """What a graph of static shapes costs."""

    operators: int
    multiply_adds: int
    elementwise: int
    intermediate_bytes: int


def cost(operators: "Sequence[Operator]") -> Cost:
    """Count a file's operators."""
    products = [_multiply_adds(op) for op in operators]
    written = [0 if op.kind == "RESHAPE" else sum(math.prod(t.shape) for t in op.outputs) for op in operators]
    elementwise = sum(elements for elements, product in zip(written, products, strict=True) if not product)
    return Cost(len(operators), sum(products), elementwise, 4 * sum(written))


def _multiply_adds(op: "Operator") -> int:
    elements = sum(math.prod(t.shape) for t in op.outputs)
    if op.kind == "FULLY_CONNECTED":
        return elements * op.inputs[1].shape[-1]
    if op.kind == "CONV_2D":
        return elements * math.prod(op.inputs[1].shape[1:])
    return elements * op.inputs[0].shape[-1] if op.kind == "BATCH_MATMUL" else 0


def load(folder: Path | None) -> "PocketBertClassifier":
    """The classifier of a folder, or MobileBERT as its authors configured it."""
    if folder is not None:
        from pocketbert.modeling.checkpoints import load_classifier

        return load_classifier(folder)
    import torch
    from transformers import MobileBertConfig

    from pocketbert.modeling.classifier import PocketBertClassifier, PocketBertConfig

    model = PocketBertClassifier(PocketBertConfig(encoder=MobileBertConfig().to_dict(), num_labels=2)).eval()
    torch.manual_seed(0)
    # Initial gains are 1 and shifts are 0: the converter would drop them, and count operators that a model has not.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def convert_all(model: "PocketBertClassifier", folder: Path, *, ends: bool = False) -> Iterator[tuple[str, Path, Cost]]:
    """A file without fusions, and one more for each that changes the model: its name, file and cost.

    `ends`: without any and with all only.
    """
    from pocketbert.delegation.operators import read_operators
    from pocketbert.export.tflite import convert
    from pocketbert.export.transplant import parameters
    from pocketbert.numerics.fusion_plan import fuse_weights

    before = None
    for count in (0, len(FUSIONS)) if ends else range(len(FUSIONS) + 1):
        chosen = FUSIONS[:count]
        weights = fuse_weights(parameters(model), model.encoder.config, chosen, length=LENGTH)
        tensors = {name: weights.steps(name) for name in weights.names()}
        if tensors == before:
            continue
        before = tensors
        path = folder / f"{count}.tflite"
        path.write_bytes(convert(model, LENGTH, MASK_VALUE, fuse=chosen))
        label = ("all" if ends else chosen[-1]) if chosen else NONE
        yield label, path, cost(read_operators(path))


def print_costs(rows: list[tuple[str, Path, Cost]]) -> None:
    """The table, each row with the fusions above it, relative to none in brackets."""
    print("| fusions | operators | multiply-adds, M | elementwise, M | intermediates, MB |\n|---|---|---|---|---|")
    first = rows[0][2]
    for index, (name, _, one) in enumerate(rows):
        label = name if index == 0 else f"+ {name}"
        cells = [
            f"{one.operators} ({one.operators / first.operators - 1:+.1%})",
            f"{one.multiply_adds / 1e6:.1f} ({one.multiply_adds / first.multiply_adds - 1:+.1%})",
            f"{one.elementwise / 1e6:.2f} ({one.elementwise / first.elementwise - 1:+.1%})",
            f"{one.intermediate_bytes / 1e6:.1f} ({one.intermediate_bytes / first.intermediate_bytes - 1:+.1%})",
        ]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Convert, count, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classifier", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--ends", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("USE_TF", "0")
    with tempfile.TemporaryDirectory(prefix="pocketbert-") as scratch:
        rows = list(convert_all(load(arguments.classifier), Path(scratch), ends=arguments.ends))
        print(f"{time.strftime('%Y-%m-%d')}, {processor_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print(f"{arguments.classifier or 'MobileBERT, 24 layers'}, {LENGTH} tokens, fp32\n")
        print_costs(rows)
        pairs = measure_in_turns(rows[0][1], rows[-1][1], rounds=arguments.rounds, runs=arguments.runs)
    ratio, low, high = ratio_of_medians(pairs)
    print(
        f"\nprocessor time of all fusions over none: {ratio:.3f}, 95 % interval {low:.3f} to {high:.3f} "
        f"({arguments.rounds} processes, {arguments.runs} pairs of runs each)"
    )


if __name__ == "__main__":
    main()

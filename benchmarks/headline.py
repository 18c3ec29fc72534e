"""How much faster the shipped student is than BERT-base, measured against the peer's own way.

    python benchmarks/headline.py [--model models/quantized/tflite-dynamic_wi8_afp32]

Three files run in one interleaved run (batch 1, 128 tokens, same LiteRT runtime with XNNPACK, same threads):

- BERT-base through transformers' stock TensorFlow class and TFLiteConverter, fp32: the yardstick;
- BERT-base through our own graph, fp32;
- the student as built by `dvc repro`.

BERT-base has random weights: time does not depend on them.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.interleaved import Series, measure_interleaved  # noqa: E402
from pocketbert.provenance import processor_name  # noqa: E402

CACHE = ROOT / ".pocketbert" / "benchmarks"
LENGTH = 128
YARDSTICK = "BERT-base, stock TF class, fp32"


def convert_stock(path: Path) -> None:
    """BERT-base by transformers' TFBertForSequenceClassification and TFLiteConverter."""
    os.environ["USE_TF"] = "1"
    import tensorflow as tf
    from transformers import BertConfig, TFBertForSequenceClassification

    model = TFBertForSequenceClassification(BertConfig())
    specs = [tf.TensorSpec([1, LENGTH], tf.int32, name=n) for n in ("input_ids", "attention_mask", "token_type_ids")]

    @tf.function(input_signature=specs)
    def serve(input_ids: object, attention_mask: object, token_type_ids: object) -> object:
        output = model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, training=False
        )
        return output.logits

    converter = tf.lite.TFLiteConverter.from_concrete_functions([serve.get_concrete_function()], model)
    path.write_bytes(converter.convert())


def convert_ours(path: Path) -> None:
    """BERT-base by pocketbert's graph, with the default classifier head."""
    from transformers import BertConfig

    from pocketbert.export.tflite import convert
    from pocketbert.modeling.classifier import PocketBertClassifier, PocketBertConfig

    model = PocketBertClassifier(PocketBertConfig(encoder=BertConfig().to_dict(), num_labels=2)).eval()
    path.write_bytes(convert(model, LENGTH, -1e4))


CONVERTERS = {"stock": convert_stock, "ours": convert_ours}


def bert_base(kind: str) -> Path:
    """The converted BERT-base, built once in a process of its own and kept under .pocketbert/benchmarks."""
    path = CACHE / f"bert-base-{kind}-{LENGTH}.tflite"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        print(f"converting BERT-base ({kind}), once ...", file=sys.stderr)
        subprocess.run([sys.executable, __file__, "--convert", kind], check=True, cwd=ROOT)
    return path


def print_table(series: dict[str, Series]) -> None:
    """Print medians, spread and sizes as Markdown, as ratios to the yardstick."""
    base = series[YARDSTICK].median_ms
    print(f"| model | median ms | medians of rounds, ms | file, MB | times faster than {YARDSTICK} |")
    print("|---|---|---|---|---|")
    for name, one in series.items():
        low, high = min(one.round_medians_ms), max(one.round_medians_ms)
        size = one.path.stat().st_size / 1e6
        print(f"| {name} | {one.median_ms:.2f} | {low:.2f} to {high:.2f} | {size:.1f} | {base / one.median_ms:.1f} |")


def main() -> None:
    """Convert what is missing, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models/quantized/tflite-dynamic_wi8_afp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--convert", choices=CONVERTERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.convert:
        target = CACHE / f"bert-base-{arguments.convert}-{LENGTH}.tflite"
        temporary = target.with_suffix(".part")
        CONVERTERS[arguments.convert](temporary)
        temporary.rename(target)
        return
    student = arguments.model / "model.tflite"
    if not student.exists():
        sys.exit(f"error: {student} does not exist. Run `make repro` first, or name an artifact with --model.")
    paths = {
        YARDSTICK: bert_base("stock"),
        "BERT-base, our graph, fp32": bert_base("ours"),
        f"student, {arguments.model.name}": student,
    }
    series = measure_interleaved(
        paths, rounds=arguments.rounds, runs=arguments.runs, warmup=5, threads=arguments.threads
    )
    print(f"{time.strftime('%Y-%m-%d')}, {processor_name()}, load {os.getloadavg()[0]:.1f}")
    how = f"{arguments.threads} thread(s), {arguments.rounds} interleaved rounds of {arguments.runs} runs"
    print(f"batch 1, {LENGTH} tokens, {how}\n")
    print_table(series)


if __name__ == "__main__":
    main()

"""How long the 24-layer MobileBERT takes to become a .tflite file, by our graph and by the peer's way.

    python benchmarks/conversion.py [--stock]

MobileBERT from its default configuration (24 layers, random weights: time does not depend on them), 128 tokens, fp32.
--stock also converts transformers' own TensorFlow class, which takes minutes.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pocketbert.provenance import processor_name  # noqa: E402

LENGTH = 128


def convert_ours() -> bytes:
    """MobileBERT with pocketbert's head through pocketbert's graph."""
    from transformers import MobileBertConfig

    from pocketbert.export.tflite import convert
    from pocketbert.modeling.classifier import PocketBertClassifier, PocketBertConfig

    encoder = MobileBertConfig().to_dict()
    model = PocketBertClassifier(PocketBertConfig(encoder=encoder, num_labels=2)).eval()
    return convert(model, LENGTH, -1e4)


def convert_stock() -> bytes:
    """MobileBERT through transformers' TFMobileBertForSequenceClassification and TFLiteConverter."""
    os.environ["USE_TF"] = "1"
    import tensorflow as tf
    from transformers import MobileBertConfig, TFMobileBertForSequenceClassification

    model = TFMobileBertForSequenceClassification(MobileBertConfig())
    names = ("input_ids", "attention_mask", "token_type_ids")

    @tf.function(input_signature=[tf.TensorSpec([1, LENGTH], tf.int32, name=name) for name in names])
    def serve(*tensors: object) -> object:
        return model(dict(zip(names, tensors, strict=True)), training=False).logits

    converter = tf.lite.TFLiteConverter.from_concrete_functions([serve.get_concrete_function()], model)
    return bytes(converter.convert())


CONVERTERS = {"ours": convert_ours, "stock": convert_stock}


def main() -> None:
    """Convert in a fresh process each and print wall seconds, processor seconds and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stock", action="store_true")
    parser.add_argument("--run", choices=CONVERTERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        started = time.perf_counter()
        content = CONVERTERS[arguments.run]()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        processor_s = usage.ru_utime + usage.ru_stime
        wall_s = time.perf_counter() - started
        sizes = f"{usage.ru_maxrss / 1e6:.1f} | {len(content) / 1e6:.1f}"
        print(f"| {arguments.run} | {wall_s:.1f} | {processor_s:.1f} | {sizes} |", flush=True)
        return
    print(f"{time.strftime('%Y-%m-%d')}, {processor_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| way | wall s, imports included | processor s | peak GB | file MB |\n|---|---|---|---|---|", flush=True)
    for way in ("ours", *(["stock"] if arguments.stock else [])):
        subprocess.run([sys.executable, __file__, "--run", way], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()

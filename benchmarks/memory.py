"""Memory of a model whole and in parts, watched from another process: `python benchmarks/memory.py [FILE...]`.

Without a file, a BERT-base (12 layers x 768, 30,522 tokens, random weights) is exported for 128 tokens first, and
quantized by two recipes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import PARTS_FILE
from pocketbert.partition.cuts import smallest_limit_mb
from pocketbert.partition.divide import divide, write_parts
from pocketbert.partition.lifetime import Schedule
from pocketbert.partition.model import read_graph
from pocketbert.partition.needs import MB, plan_memory

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Watched:
    """What another process saw of a run: its largest resident memory over that before the model was loaded."""

    peak_bytes: int
    seconds: float
    logits: NDArray[np.float32]


def watch(model: Path, *, rows: int = 1, vocabulary: int = 30522, mapped: bool = False) -> Watched:
    """Run a .tflite file or a parts.json in a fresh process and read its peak from /proc, from here."""
    with tempfile.TemporaryDirectory(prefix="pocketbert-memory-") as scratch:
        logits = Path(scratch) / "logits.npy"
        command = [
            sys.executable,
            __file__,
            "--run",
            str(model),
            str(logits),
            str(rows),
            str(vocabulary),
            str(int(mapped)),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            if process.stdin is None or process.stdout is None or process.stdout.readline() != "ready\n":
                raise RuntimeError(f"{command} did not start")
            # 5 sets the peak back to what is resident now.
            Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")
            before, started = _status(process.pid, "VmRSS"), time.monotonic()
            process.stdin.write("go\n")
            process.stdin.flush()
            if process.stdout.readline() != "done\n":
                raise RuntimeError(f"{command} failed")
            seconds, peak = time.monotonic() - started, _status(process.pid, "VmHWM")
            process.stdin.write("end\n")
            process.stdin.flush()
        return Watched(peak - before, seconds, np.load(logits))


def _status(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024


def _run(model: Path, logits: Path, rows: int, vocabulary: int, mapped: bool) -> None:
    """The watched process: everything but the model is in memory before it says that it is ready."""
    from pocketbert.partition.runtime import PartsRuntime
    from pocketbert.runtimes.base import Runtime
    from pocketbert.runtimes.litert_runtime import open_file

    random = np.random.default_rng(0)
    lengths = np.linspace(128, 3, rows, dtype=int)
    mask = (np.arange(128) < lengths[:, None]).astype(np.int32)
    ids = (random.integers(vocabulary, size=(rows, 128)) * mask).astype(np.int32)
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
    _say("ready")
    in_parts = model.name == PARTS_FILE
    runtime: Runtime = PartsRuntime(model, 1, mapped=mapped) if in_parts else open_file(model, 1)
    np.save(logits, runtime.run(batch))
    _say("done")
    os._exit(0)


def _say(word: str) -> None:
    print(word, flush=True)
    sys.stdin.readline()


def export_base(folder: Path) -> list[Path]:
    """A BERT-base with random weights, which cost the memory of trained ones, and what recipes make of it."""
    import torch

    from pocketbert.export.tflite import convert
    from pocketbert.modeling.classifier import PocketBertClassifier, PocketBertConfig
    from pocketbert.params import HeadParams
    from pocketbert.quantize import recipes_tflite
    from pocketbert.quantize.options import Fp16Options, RecipeOptions

    torch.manual_seed(13)
    encoder = {
        "model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072,
    }  # fmt: skip
    config = PocketBertConfig(encoder=encoder, pooling="mean", head=HeadParams().model_dump(), num_labels=150)
    source = folder / "fp32.tflite"
    source.write_bytes(convert(PocketBertClassifier(config).eval(), 128, -1e4))
    recipes = {"dynamic_wi8_afp32": RecipeOptions(), "fp16": Fp16Options()}
    quantized = [folder / f"{recipe}.tflite" for recipe in recipes]
    for (recipe, options), target in zip(recipes.items(), quantized, strict=True):
        getattr(recipes_tflite, recipe)(source, target, options, None)
    return [source, *quantized]


def _forget(path: Path) -> None:
    """Drop a file from the page cache, as on a device that has not just written it: see partition/write.py."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare(path: Path, share: float, scratch: Path) -> str:
    """A line: planned and watched memory of the file, and of the file in parts that may need `share` of it."""
    schedule = Schedule(read_graph(path))
    vocabulary = max(t.shape[0] for t in schedule.graph.tensors if t.stored and len(t.shape) == 2 and t.shape[0] > 4096)
    plan = plan_memory(schedule).need.total_bytes
    folder = scratch / f"{path.parent.name}-{path.stem}"
    manifest = write_parts(divide(path, max(share * plan / MB, smallest_limit_mb(schedule))), folder)
    _forget(path)
    # The first run reads the file from disk.
    _, whole, _, parts = (watch(p, vocabulary=vocabulary) for p in [path] * 2 + [folder / PARTS_FILE] * 2)
    equal = "equal" if np.array_equal(whole.logits, parts.logits) else "DIFFERENT"
    name = path.parent.name if path.stem == "model" else path.stem
    return (
        f"{name:<28}{plan / MB:>9.1f}{whole.peak_bytes / MB:>9.1f}{len(manifest.parts):>7}"
        f"{manifest.largest_need_bytes / MB:>9.1f}{parts.peak_bytes / MB:>9.1f}"
        f"{parts.peak_bytes / whole.peak_bytes:>8.1%}{parts.seconds / whole.seconds:>8.2f}  {equal}"
    )


def main() -> None:
    """Print the table."""
    if sys.argv[1:2] == ["--run"]:
        _run(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6] == "1")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--share", type=float, default=0.25, help="limit of the parts, as a share of the plan")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pocketbert-memory-") as scratch:
        files = arguments.files or export_base(Path(scratch))
        print("MB of 1,000,000 bytes over the process before; planned and watched; share and time of parts to whole")
        print(
            f"{'file':<28}{'planned':>9}{'watched':>9}{'parts':>7}{'planned':>9}{'watched':>9}{'share':>8}{'time':>8}"
        )
        for path in files:
            print(compare(path, arguments.share, Path(scratch)), flush=True)


if __name__ == "__main__":
    main()

"""LiteRT's own `benchmark_model`, Google's prebuilt program for Android, as a runner that proves what it times.

It times one row and prints summaries, no single runs. But it reads the row from files and writes the logits of its last
run to a file (--input_layer_value_files, --output_filepath), so that it is asked once more for each row to prove. The
flags and lines are those of tensorflow/lite/tools/benchmark/benchmark_model.cc and benchmark_tflite_model.cc.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.artifacts import Artifact
from pocketbert.devices.agent.engine import Refused
from pocketbert.errors import CheckpointError

_NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"
# One line after the warm-up, one after the measured runs; the newer ones hold percentiles.
_COUNT = re.compile(rf"count=(\d+)\b(?:[^\n]* median={_NUMBER})?")
_TIMINGS = re.compile(rf"Inference timings in us: Init: .*Inference \(avg\): {_NUMBER}")
_PEAK_MIB = re.compile(rf"Overall peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}")
_REPLACED = re.compile(r"Replacing (\d+) out of \d+ node\(s\) with delegate \((\w*Gpu\w*)\) node, yielding (\d+) part")
_GPU_WANTED = re.compile(r"Created TensorFlow Lite delegate for GPU|[Aa]pplied GPU delegate|GPU delegate is explicitly")
_GPU_UNUSED = "will not be executed by the delegate"

# Runs a command once for each row from $3 on, before $4, of the file $1, which holds row after row, the inputs ($2:
# their sizes in bytes) of a row one after another. The logits are gathered in one file.
RUN_ROWS = """
echo $$ > pid
file=$1 sizes=$2 row=$3 end=$4 total=0
shift 4
for size in $sizes; do total=$((total + size)); done
end_with() { echo "$1" > code.part; mv code.part code; exit; }
while [ "$row" -lt "$end" ]; do
  offset=$((row * total)) i=0
  for size in $sizes; do
    tail -c +"$((offset + 1))" "$file" | head -c "$size" > "input$i"
    offset=$((offset + size)) i=$((i + 1))
  done
  rm -f output
  "$@" > answer 2> said || end_with $?
  [ -f output ] || { echo "it wrote no logits: is it older than its flag --output_filepath?" > said; end_with 1; }
  cat output >> logits || end_with $?
  row=$((row + 1))
done
end_with 0
"""


@dataclass(frozen=True)
class Layers:
    """The inputs of a .tflite file, in its own order: shapes, and sizes of a row in bytes."""

    shapes: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]

    def flags(self) -> list[str]:
        """What makes the program read `input0`, `input1`, ... and write `output`, all in its working directory."""
        names = [f"input{index}" for index in range(len(self.shapes))]
        shapes = ":".join(",".join(map(str, shape)) for shape in self.shapes)
        # The names are ours: the program goes by the order, and warns of other names only.
        return [
            f"--input_layer={','.join(names)}",
            f"--input_layer_shape={shapes}",
            f"--input_layer_value_files={','.join(f'{name}:{name}' for name in names)}",
            "--output_filepath=output",
        ]


def write_raw_rows(artifact: Artifact, rows: dict[str, NDArray[np.int32]], path: Path) -> Layers:
    """Write rows [rows, S] as the model's input tensors take them.

    Raises CheckpointError for a file that cannot be read, or whose inputs are not tokens.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=str(artifact.model_path))
        runner = interpreter.get_signature_runner("serving_default")
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{artifact.name} cannot be read: {error}", "Export it again.") from error
    inputs = {detail["index"]: (name, detail) for name, detail in runner.get_input_details().items()}
    outputs = [detail["dtype"] for detail in runner.get_output_details().values()]
    if outputs != [np.float32] or not {name for name, _ in inputs.values()} <= set(rows):
        raise CheckpointError(
            f"{artifact.name} has other inputs than tokens, or other outputs than float logits",
            "Let a program of your own measure it (docs/devices.md), or export it with the profile delegate.",
        )
    ordered = [inputs[detail["index"]] for detail in interpreter.get_input_details()]
    shapes = [tuple(int(size) for size in detail["shape"]) for _, detail in ordered]
    with path.open("wb") as stream:
        for index in range(len(next(iter(rows.values())))):
            for (name, detail), shape in zip(ordered, shapes, strict=True):
                stream.write(rows[name][index].reshape(shape).astype(detail["dtype"]).tobytes())
    sizes = [
        int(np.prod(shape)) * np.dtype(detail["dtype"]).itemsize
        for (_, detail), shape in zip(ordered, shapes, strict=True)
    ]
    return Layers(tuple(shapes), tuple(sizes))


def read_figures(printed: str) -> dict[str, Any]:
    """What the program printed, in the words of an answer; raises Refused where it is not whole, or no GPU ran.

    A round has one figure: the median of its runs, or the mean where the program is too old to print a median.
    """
    counts, timings = _COUNT.findall(printed), _TIMINGS.search(printed)
    if not counts or timings is None:
        raise Refused("it printed no line `Inference timings in us: ...`: it is no benchmark_model, or it broke off")
    runs, median_us = int(counts[-1][0]), counts[-1][1]
    replaced, wanted = _REPLACED.findall(printed), _GPU_WANTED.search(printed) is not None
    if wanted and _GPU_UNUSED in printed:
        raise Refused("the GPU delegate took no operator: this would be the processor's time")
    peak = _PEAK_MIB.search(printed)
    return {
        "runtime": f"benchmark_model ({'median' if median_us else 'mean'} of each round)",
        "accelerator": "gpu" if wanted or replaced else "cpu",
        "latencies_ms": [float(median_us or timings[1]) / 1000],
        "summary_runs": runs,
        "wall_s": runs * float(timings[1]) / 1e6,
        "memory_peak_bytes": None if peak is None else int(float(peak[1]) * 2**20),
        "delegated_ops": int(replaced[-1][0]) if replaced else None,
        "partitions": int(replaced[-1][2]) if replaced else None,
    }


def make_answer(printed: bytes, logits: bytes, rows: int, started_s: float) -> dict[str, Any]:
    """The answer of a measurement, with the logits of `rows` rows; raises Refused."""
    figures = read_figures(printed.decode(errors="replace"))
    if rows < 1 or not logits or len(logits) % (4 * rows):
        raise Refused(f"it wrote {len(logits)} bytes, which are no float logits of {rows} rows")
    if not np.isfinite(np.frombuffer(logits, dtype="<f4")).all():
        raise Refused(
            "it gives NaN or infinite logits. Look at mask_value and at the recipe: fp16 overflows beyond 65504."
        )
    unknown: Sequence[str] = (
        "gpu_adapter", "cpu_s", "memory_baseline_bytes", "memory_pss_bytes", "power_mean_mw", "temperature_start_c",
        "temperature_end_c",
    )  # fmt: skip
    return {
        **dict.fromkeys(unknown),
        **figures,
        "logits": base64.b64encode(logits).decode(),
        "classes": len(logits) // 4 // rows,
        "started_s": started_s,
    }

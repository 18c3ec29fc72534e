"""Stages that stand for a nightly benchmark; p50 comes from a file `<device>.p50`, below 0 is a failure."""

BENCHMARK = """
import json, sys
import pyarrow as pa
import pyarrow.parquet as pq
from pathlib import Path
name = sys.argv[1]
p50 = float(Path(f"{name}.p50").read_text())
unknown = dict.fromkeys(("runtime accelerator latency_p90_ms memory_baseline_bytes memory_peak_bytes cpu_percent "
    "power_mean_mw temperature_start_c temperature_end_c total_ops delegated_ops partitions logit_max_abs_diff "
    "logit_rel_diff agreement error").split())
row = {**unknown, "artifact": "tflite-fp32", "md5": "a", "sequence_length": 128, "threads": 1, "size_bytes": 1,
       "runs": 60, "latency_p50_ms": p50, "latency_p50_ci_ms": None}
if p50 < 0:
    sys.exit("ERROR the board does not answer")
folder = Path(f"results/benchmark/{name}")
folder.mkdir(parents=True)
document = {"device": {"name": name, "error": None}, "harness": {}, "measured_at": "", "rows": [row]}
(folder / "benchmark.json").write_text(json.dumps(document))
runs = [(number, p50 * factor) for number, factor in enumerate((0.995, 1.0, 1.005)) for _ in range(20)]
columns = {"artifact": ["tflite-fp32"] * 60, "round": [r for r, _ in runs], "latency_ms": [ms for _, ms in runs]}
pq.write_table(pa.table(columns), folder / "latencies.parquet")
"""
BENCHMARK_STAGES = """
  benchmark:
    foreach: [one, two]
    do:
      cmd: python benchmark.py ${item}
      deps: [benchmark.py]
      outs: ["results/benchmark/${item}"]
  publish:
    cmd: mkdir results/publish && touch results/publish/done
    deps: [results/benchmark]
    outs: [results/publish]
"""

"""The files of a benchmark: rows and facts as JSON, raw latencies and sensors' readings as Parquet."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pocketbert import __version__
from pocketbert.devices.base import Answer, Sample
from pocketbert.devices.rows import BenchmarkRow

# Raised when a change makes latencies incomparable with earlier ones. 2: the worker imports nothing of pocketbert.
HARNESS_VERSION = 2

Facts = Mapping[str, "str | int | float | None"]


def write_document(
    folder: Path, facts: Facts, sources: Mapping[str, str | None], measured_at: str, rows: Sequence[BenchmarkRow]
) -> None:
    """benchmark.json: the device, the paths that its sensors were read from, the harness, a row an artifact."""
    document = {
        "device": dict(facts),
        "telemetry_sources": dict(sources),
        "harness": {"pocketbert": __version__, "version": HARNESS_VERSION},
        "measured_at": measured_at,
        "rows": [row.model_dump(mode="json") for row in rows],
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "benchmark.json").write_text(text + "\n", encoding="utf-8")


def write_latencies(path: Path, answers: Mapping[str, Sequence[Answer]]) -> None:
    """Raw latencies: artifact, round, run, latency_ms."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    runs = [
        {"artifact": name, "round": index, "run": run, "latency_ms": latency}
        for name, rounds in answers.items()
        for index, answer in enumerate(rounds)
        for run, latency in enumerate(answer.latencies_ms)
    ]
    columns = pa.schema(
        [("artifact", pa.string()), ("round", pa.int32()), ("run", pa.int32()), ("latency_ms", pa.float64())]
    )
    pq.write_table(pa.Table.from_pylist(runs, schema=columns), path)


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Sensors' readings, one line each; `at_s` counts from the agent's start, units stand in the names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = pa.schema(
        [("at_s", pa.float64()), ("artifact", pa.string()), ("round", pa.int32())]
        + [(name, pa.float64()) for name in Sample.model_fields if name not in ("at_s", "artifact", "round")]
    )
    pq.write_table(pa.Table.from_pylist([s.model_dump() for s in samples], schema=columns), path)

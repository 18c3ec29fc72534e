"""Two artifacts of a run, two runs of a device: verdicts from the files that a benchmark writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pocketbert.cli import app
from pocketbert.errors import DeviceError, ParamsError
from pocketbert.report.latency_runs import MeasuredRun, compare_artifacts, compare_runs, read_run
from tests.report.conftest import md5_of, write_json
from tests.report.test_latency import rounds_like_a_machine

MEDIANS = {"tflite-fp32": 1.0, "tflite-int8": 0.4, "tflite-int4": 0.5}


def write_run(
    folder: Path, seed: int, factors: dict[str, float] | None = None, edit: Callable[[dict[str, Any]], Any] = id
) -> Path:
    """A benchmark of five rounds whose artifacts take their factor of 5 ms; the file of a factor changed, too."""
    generator, factors, raw, rows = np.random.default_rng(seed), factors or {}, [], []
    folder.mkdir(parents=True)
    for name, base in MEDIANS.items():
        factor = factors.get(name, 1.0)
        for index, runs in enumerate(rounds_like_a_machine(generator, factor=base * factor)):
            raw += [{"artifact": name, "round": index, "run": i, "latency_ms": v} for i, v in enumerate(runs)]
        unknown = dict.fromkeys(
            ("accelerator", "latency_p50_ms", "latency_p90_ms", "latency_p50_ci_ms", "memory_baseline_bytes",
             "memory_peak_bytes", "cpu_percent", "power_mean_mw", "temperature_start_c", "temperature_end_c",
             "total_ops", "delegated_ops", "partitions", "logit_max_abs_diff", "logit_rel_diff", "agreement", "error")
        )  # fmt: skip
        rows.append(
            {"artifact": name, "md5": md5_of(f"{name}{factors.get(name, '')}"), "runtime": "litert 2.3.0",
             "sequence_length": 128, "threads": 1, "size_bytes": 1, "runs": 200, **unknown}
        )  # fmt: skip
    document: dict[str, Any] = {
        "device": {"name": "board", "processor": "A55", "cores": 4, "os": "Linux", "governor": "performance"},
        "harness": {"pocketbert": "0.1.0", "version": 2}, "measured_at": "2026-01-01T12:00:00Z", "rows": rows,
    }  # fmt: skip
    edit(document)
    write_json(folder / "benchmark.json", document)
    pq.write_table(pa.Table.from_pylist(raw), folder / "latencies.parquet")
    return folder


@pytest.fixture
def before(tmp_path: Path) -> MeasuredRun:
    return read_run(write_run(tmp_path / "before", seed=1))


def outcomes(before: MeasuredRun, after: Path) -> dict[str, str]:
    return {change.artifact: change.comparison.outcome for change in compare_runs(before, read_run(after)).changes}


def test_two_artifacts_of_one_run(before: MeasuredRun) -> None:
    assert compare_artifacts(before, "tflite-fp32", "tflite-int8").outcome == "faster"
    assert compare_artifacts(before, "tflite-int8", "tflite-int4").outcome == "slower"
    with pytest.raises(ParamsError, match="'tflite-int2' has no latencies on board"):
        compare_artifacts(before, "tflite-int2", "tflite-int4")


def test_a_second_run_of_the_same_files_changes_nothing(before: MeasuredRun, tmp_path: Path) -> None:
    assert set(outcomes(before, write_run(tmp_path / "after", seed=2)).values()) == {"no difference"}


def test_a_file_that_became_slower_is_a_regression(before: MeasuredRun, tmp_path: Path) -> None:
    after = write_run(tmp_path / "after", seed=2, factors={"tflite-int8": 1.3})
    compared = compare_runs(before, read_run(after))
    assert [change.artifact for change in compared.regressions] == ["tflite-int8"]
    assert [change.same_file for change in compared.changes] == [True, False, True]
    assert compared.as_dict()["regressions"] == ["tflite-int8"]


def test_a_machine_that_became_slower_is_no_regression_of_a_file(before: MeasuredRun, tmp_path: Path) -> None:
    """All files take 30 % longer, and two of them did not change."""
    after = write_run(tmp_path / "after", seed=2)
    table = pq.read_table(after / "latencies.parquet").to_pandas()
    table["latency_ms"] *= 1.3
    table.to_parquet(after / "latencies.parquet")
    document = json.loads((after / "benchmark.json").read_text())
    document["rows"][1]["md5"] = "0" * 32
    document["device"]["governor"] = "powersave"
    write_json(after / "benchmark.json", document)
    compared = compare_runs(before, read_run(after))
    assert not compared.regressions
    assert compared.changes[1].comparison.ratio == pytest.approx(1.3, rel=0.05)
    assert compared.conditions == ["governor: performance, then powersave"]


def test_runs_that_cannot_be_compared_are_refused(before: MeasuredRun, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", 2, edit=lambda document: document["device"].update(name="phone"))
    with pytest.raises(DeviceError, match="two devices, board and phone"):
        compare_runs(before, read_run(other))
    older = write_run(tmp_path / "older", 2, edit=lambda document: document["harness"].update(version=1))
    with pytest.raises(DeviceError, match="harness versions 2 and 1"):
        compare_runs(before, read_run(older))


def test_the_command_says_it_in_words_and_in_json(tmp_path: Path) -> None:
    first = write_run(tmp_path / "results/board", seed=1)
    second = write_run(tmp_path / "after", seed=2, factors={"tflite-int8": 1.3})
    runner = CliRunner()
    options = ["--device", "board", "--results", str(tmp_path / "results")]
    said = runner.invoke(app, ["compare-latency", "tflite-fp32", "tflite-int8", *options])
    assert said.exit_code == 0
    assert said.output.startswith("tflite-int8 against tflite-fp32 on board: faster: 0.")
    runs = runner.invoke(app, ["compare-latency", str(first), str(second)])
    assert "tflite-int8: slower: 1.2" in runs.output
    assert "tflite-fp32 (the same file): no difference" in runs.output
    document = json.loads(runner.invoke(app, ["compare-latency", str(first), str(second), "--json"]).output)
    assert document["regressions"] == ["tflite-int8"]

from typing import Any

import pytest

from pocketbert.report.latency_runs import MeasuredRun
from pocketbert.report.regression import NightChange, compare_nights
from pocketbert.report.sources import Benchmark, MeasuredRow

UNKNOWN = dict.fromkeys(
    ("runtime", "accelerator", "latency_p50_ms", "latency_p90_ms", "latency_p50_ci_ms", "memory_baseline_bytes",
     "memory_peak_bytes", "cpu_percent", "power_mean_mw", "temperature_start_c", "temperature_end_c", "total_ops",
     "delegated_ops", "partitions", "logit_max_abs_diff", "logit_rel_diff", "agreement", "error")
)  # fmt: skip


def night(md5: str = "a", error: str | None = None, **p50: float) -> MeasuredRun:
    """A night in which each artifact took so many ms, three rounds a half per cent apart."""
    shape = {"md5": md5, "sequence_length": 128, "threads": 1, "size_bytes": 1, "runs": 60}
    rows: list[dict[str, Any]] = [{**UNKNOWN, **shape, "artifact": name, "error": error} for name in ("one", "two")]
    document = {"device": {"name": "board"}, "harness": {}, "measured_at": "", "rows": rows}
    rounds = {name: [[ms * factor] * 20 for factor in (0.995, 1.0, 1.005)] for name, ms in p50.items()}
    return MeasuredRun(Benchmark.model_validate(document), rounds)


def compare(before: MeasuredRun, after: MeasuredRun, noise: float = 0.05) -> list[NightChange]:
    return list(compare_nights(before, after, noise))


@pytest.mark.parametrize(("now", "regressed"), [(10.1, False), (10.4, False), (12.0, True), (8.0, False)])
def test_slower_is_what_lies_beyond_chance_and_drift(now: float, regressed: bool) -> None:
    (change,) = compare(night(one=10.0), night(one=now))
    assert change.regressed is regressed
    assert str(change).startswith("one on board: ")


def test_without_drift_chance_alone_decides() -> None:
    assert compare(night(one=10.0), night(one=10.4), noise=0.0)[0].regressed


def test_a_device_that_is_slower_in_everything_is_a_regression() -> None:
    assert [change.regressed for change in compare(night(one=10, two=20), night(one=12, two=24))] == [True, True]


def test_what_can_not_be_measured_any_more_is_a_regression() -> None:
    (change,) = compare(night(one=10.0), night(error="out of memory"))
    assert change.regressed
    assert str(change) == "one on board: not measured any more: out of memory"


def test_another_file_and_a_new_one_are_not_compared() -> None:
    assert compare(night(one=10.0), night(md5="b", one=99.0)) == []
    assert [change.artifact for change in compare(night(one=10.0), night(one=10.0, two=99.0))] == ["one"]


def test_an_error_is_that_of_the_processor_or_of_the_gpu_and_not_the_others() -> None:
    """A file has a row for each; the names of their rounds tell them apart."""
    before, after = night(one=10.0, **{"one@gpu-fp16": 5.0}), night()
    rows = [{**row.model_dump(), "error": "out of memory"} for row in after.benchmark.rows[:1]]
    rows.append({**rows[0], "gpu_precision": "fp16", "error": "the driver crashed"})
    after = MeasuredRun(after.benchmark.model_copy(update={"rows": [MeasuredRow(**row) for row in rows]}), {})
    rows = [{**row, "error": None} for row in rows]
    before = MeasuredRun(
        before.benchmark.model_copy(update={"rows": [MeasuredRow(**row) for row in rows]}), before.rounds
    )
    assert [(change.artifact, change.error) for change in compare(before, after)] == [
        ("one", "out of memory"),
        ("one@gpu-fp16", "the driver crashed"),
    ]


def test_a_row_that_is_gone_says_so() -> None:
    """A GPU that is taken out of devices.yaml has no row any more."""
    before = night(one=10.0)
    rows = [before.benchmark.rows[0].model_copy(update={"gpu_precision": "fp16"})]
    gpu = MeasuredRun(before.benchmark.model_copy(update={"rows": rows}), {"one@gpu-fp16": before.rounds["one"]})
    assert compare(gpu, night(one=10.0)) == []

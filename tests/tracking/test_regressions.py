"""The latencies of the last published run of a device, against those of this one, in a real store."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.report.test_latency_runs import write_run

from .built import artifact_names, everything, lock_entry, publish, write_lock
from .test_publish import Connect

BOARD = Path("results/benchmark/board")


def measure(seed: int, **options: Any) -> None:
    shutil.rmtree(BOARD, ignore_errors=True)
    write_run(BOARD, seed, **options)


def verdict() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("published/regressions.json").read_text())["board"]
    return found


def test_a_file_slower_than_in_the_last_published_run_is_named(built: Path, store: Connect) -> None:
    measure(1)
    first = publish()
    assert verdict() == {
        "run_id": None, "unknown": "no other published run measured this device", "regressions": []
    }  # fmt: skip
    names = set(artifact_names(store(), first["run_id"]))
    assert {"benchmark/board/benchmark.json", "benchmark/board/latencies.parquet"} <= names
    # Another state, in which one file became slower.
    write_lock({"distill": lock_entry("distill", md5="another")})
    measure(2, factors={"tflite-int8": 1.3})
    second = publish()
    assert second["state"] != first["state"]
    assert verdict()["run_id"] == first["run_id"]
    assert verdict()["regressions"] == ["tflite-int8"]
    assert {change["artifact"]: change["same_file"] for change in verdict()["changes"]} == {
        "tflite-fp32": True, "tflite-int8": False, "tflite-int4": True
    }  # fmt: skip
    tags = store().client.get_run(second["run_id"]).data.tags
    assert tags["pocketbert.regressions"] == "tflite-int8 on board"
    # Once more changes nothing.
    before, said = everything(store()), verdict()
    publish()
    assert everything(store()) == before
    assert verdict() == said


def test_a_run_of_another_harness_is_no_measure(built: Path) -> None:
    measure(1, edit=lambda document: document["harness"].update(version=1))
    publish()
    write_lock({"distill": lock_entry("distill", md5="another")})
    measure(2)
    publish()
    assert "harness versions 1 and 2" in verdict()["unknown"]
    assert verdict()["regressions"] == []

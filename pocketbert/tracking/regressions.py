"""Whether a device became slower since the last published run that measured it."""

import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pocketbert.errors import PocketBertError
from pocketbert.report.latency_runs import RunComparison, compare_runs, read_run
from pocketbert.tracking.store import STATE_TAG, Store

# Folder of the parent run's artifacts; a folder a device below it.
ARTIFACTS = "benchmark"
_FILES = ("benchmark.json", "latencies.parquet")
# Earlier states that are looked through for a device.
_LOOKED_BACK = 50

NO_REGRESSION = "none"

_log = logging.getLogger("pocketbert")


def benchmark_files(benchmarked: Path) -> dict[str, Path]:
    """What `publish` uploads of results/benchmark, by its name in the run."""
    folders = sorted(path.parent for path in benchmarked.glob("*/benchmark.json"))
    files = [folder / name for folder in folders for name in _FILES]
    return {f"{ARTIFACTS}/{path.parent.name}/{path.name}": path for path in files if path.is_file()}


def judge_devices(store: Store, state: str, benchmarked: Path) -> dict[str, dict[str, Any]]:
    """For each device of results/benchmark what became of its latencies since another state was published.

    A device without an earlier run, and one whose earlier run cannot be compared, has its reason as `unknown`.
    """
    earlier = _earlier_runs(store, state)
    verdicts: dict[str, dict[str, Any]] = {}
    for folder in sorted(path.parent for path in benchmarked.glob("*/benchmark.json")):
        verdict = verdicts[folder.name] = _judge(store, earlier, folder)
        for slower in verdict.get("regressions", ()):
            _log.warning("%s on %s is slower than in the last published run", slower, folder.name)
    return verdicts


def summary(verdicts: dict[str, dict[str, Any]]) -> str:
    """One line for a tag of the run."""
    slower = [f"{artifact} on {device}" for device, found in verdicts.items() for artifact in found["regressions"]]
    return ", ".join(slower) or NO_REGRESSION


def write_verdicts(verdicts: dict[str, dict[str, Any]], path: Path) -> None:
    """Write the verdicts as JSON."""
    text = json.dumps(verdicts, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _earlier_runs(store: Store, state: str) -> list[Any]:
    """Parent runs of other states, the newest first."""
    found = store.client.search_runs(
        [store.experiment_id],
        filter_string=f"tags.`{STATE_TAG}` != '{state}'",
        order_by=["attributes.start_time DESC"],
        max_results=_LOOKED_BACK,
    )
    return list(found)


def _judge(store: Store, earlier: list[Any], folder: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="pocketbert-") as scratch:
        for run in earlier:
            files = {entry.path for entry in _artifacts(store, run, folder.name)}
            if not files.issuperset(f"{ARTIFACTS}/{folder.name}/{name}" for name in _FILES):
                continue
            copy = store.client.download_artifacts(run.info.run_id, f"{ARTIFACTS}/{folder.name}", scratch)
            try:
                compared = compare_runs(read_run(Path(copy)), read_run(folder))
            except PocketBertError as error:
                return {"run_id": run.info.run_id, "unknown": str(error), "regressions": []}
            return {"run_id": run.info.run_id, **_plain(compared)}
    return {"run_id": None, "unknown": "no other published run measured this device", "regressions": []}


def _artifacts(store: Store, run: Any, device: str) -> Iterator[Any]:
    yield from store.client.list_artifacts(run.info.run_id, f"{ARTIFACTS}/{device}")


def _plain(compared: RunComparison) -> dict[str, Any]:
    document = compared.as_dict()
    del document["device"]
    return document

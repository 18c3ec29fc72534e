"""The parent run of a pipeline state: made once, and after that changed only where it differs."""

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketbert.artifacts import read_artifacts
from pocketbert.errors import TrackingError
from pocketbert.params import Params
from pocketbert.redaction import hide_secrets, hide_secrets_in
from pocketbert.tracking.delivery import deliver_left_behind
from pocketbert.tracking.flatten import flatten_params
from pocketbert.tracking.location import exclusively, require_listener, spool_folder, tracking_uri
from pocketbert.tracking.registry import RegisteredVersion, mark_chosen, register, to_register
from pocketbert.tracking.regressions import NO_REGRESSION, benchmark_files, judge_devices, summary, write_verdicts
from pocketbert.tracking.spool import wait_until_sent
from pocketbert.tracking.state import (
    StageRecord,
    headline_metrics,
    locked_stages,
    provenance_files,
    read_choice,
    stage_records,
    state_hash,
    state_params,
    student_summary,
    tree_md5,
)
from pocketbert.tracking.store import EXECUTION_TAG, PARENT_TAG, STATE_TAG, Store, import_mlflow, patience
from pocketbert.tracking.unchanged import inputs_md5, published_before, remember

if TYPE_CHECKING:
    from pocketbert.stage import Metrics

_UPLOADED_TAG = "pocketbert.uploaded"
# A server may pass an upload on to a slow object store before it answers.
_REQUEST_TIMEOUT_S, _RETRIES = 60, 2
# The stage before may still be sending.
_SENDERS_TIMEOUT_S = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Record:
    """What the parent run has to say."""

    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


def publish_pipeline(
    params: Params, report: Path, folders: list[Path], published: Path, benchmarked: Path = Path("results/benchmark")
) -> "Metrics":
    """Upsert the parent run of the present state and write `published`/publish.json.

    Reads dvc.lock, dvc.yaml, params.yaml, metrics/ and provenance/ of the working folder. Sends what stages
    could not send first. Publishing the same state again changes nothing. Raises TrackingError where the
    store does not answer; nothing is lost then.
    """
    uri = tracking_uri(params.publish)
    inputs = inputs_md5(params, [report, benchmarked, *folders])
    if (before := published_before(uri, params.publish, inputs, published)) is not None:
        return before
    state, source = state_hash(params, report)
    metrics, texts = headline_metrics(params, report)
    choice = read_choice(report)
    if choice is not None:
        texts |= {"pocketbert.chosen": choice.artifact or "none", "pocketbert.chosen_reason": choice.reason}
    tags = {**texts, STATE_TAG: state, "pocketbert.state_source": source, "mlflow.source.name": "stages/publish.py"}
    if experiment := os.environ.get("DVC_EXP_NAME"):
        tags["dvc.experiment"] = experiment
    record = _Record(flatten_params(state_params(params)), metrics, tags)
    artifacts = read_artifacts(folders)
    with _explained(uri), patience(_REQUEST_TIMEOUT_S, _RETRIES), exclusively("publish"):
        store = Store(params.publish)
        records = stage_records(params)
        wait_until_sent(spool_folder(), [record.execution_id for record in records], _SENDERS_TIMEOUT_S)
        deliver_left_behind(spool_folder(), store)
        run = _parent(store, f"{student_summary(params)} {tags.get('dvc.experiment', state[:7])}", state)
        run_id: str = run.info.run_id
        with _closing(store, run):
            links = _link_stages(store, run_id, records)
            versions = [
                register(store, run_id, params.publish, artifact, {STATE_TAG: state})[0]
                for artifact in to_register(params.publish, artifacts, choice.artifact if choice else None)
            ]
            if choice is not None:
                mark_chosen(store, params.publish, versions, choice.artifact)
            verdicts = judge_devices(store, state, benchmarked)
            record.tags["pocketbert.regressions"] = summary(verdicts)
            named = {f"model.{version.artifact}": version.uri for version in versions}
            _update(store, run, _Record(record.params, record.metrics, {**record.tags, **links, **named}))
            with tempfile.TemporaryDirectory() as folder:
                _upload(store, run, _bundle(Path(folder), params, report) | benchmark_files(benchmarked))
        _write(published, store, run_id, state, versions)
        write_verdicts(verdicts, published / "regressions.json")
        told: Metrics = {
            "params": len(record.params),
            "metrics": len(record.metrics),
            "stage_runs": len(links),
            "registered_models": len(versions),
        }
        # Of a regression it is warned each time.
        if record.tags["pocketbert.regressions"] == NO_REGRESSION:
            remember(uri, params.publish, inputs, published, run_id, told)
    return told


def _parent(store: Store, name: str, state: str) -> Any:
    found = store.find_runs(STATE_TAG, state)
    if found:
        return found[0]
    run = store.client.create_run(store.experiment_id, tags={STATE_TAG: state}, run_name=name)
    # So it stays where this process is killed before the run is complete: nobody else would close it.
    store.client.update_run(run.info.run_id, "KILLED")
    return run


@contextmanager
def _closing(store: Store, run: Any) -> Iterator[None]:
    """The parent is a record, not a process: it is finished as soon as it is complete."""
    yield
    if run.info.status != "FINISHED":
        store.end(run.info.run_id, "FINISHED", time.time_ns() // 1_000_000)


def _update(store: Store, run: Any, record: _Record) -> None:
    """Write what the run does not say already."""
    run_id = run.info.run_id
    store.log_params(run_id, {k: v for k, v in record.params.items() if k not in run.data.params})
    changed = {k: v for k, v in record.metrics.items() if run.data.metrics.get(k) != v}
    # The same state may be measured anew (a duration): at equal steps MLflow shows the youngest value.
    store.log_points(run_id, [(time.time_ns() // 1_000_000, 0, changed)])
    store.tag(run_id, {k: v for k, v in record.tags.items() if run.data.tags.get(k) != v})


def _link_stages(store: Store, parent: str, records: list[StageRecord]) -> dict[str, str]:
    """Tags `stage.<name>` of the parent; a stage's run gets the first parent that published it."""
    links = {}
    for record in records:
        found = store.find_runs(EXECUTION_TAG, record.execution_id)
        if found:
            links[f"stage.{record.stage}"] = found[0].info.run_id
            if PARENT_TAG not in found[0].data.tags:
                store.tag(found[0].info.run_id, {PARENT_TAG: parent})
        else:
            # Its outputs came from a DVC remote, or were made while another store was in use.
            _log.info("the run of %s is not in this MLflow store", record.stage)
            links[f"stage.{record.stage}"] = f"execution {record.execution_id}"
    return links


def _bundle(folder: Path, params: Params, report: Path) -> dict[str, Path]:
    """Files to upload, by their name in the run: the report, the provenance and the pipeline's definition."""
    from ruamel.yaml import YAML

    uploads = {f"report/{path.name}": path for path in sorted(report.iterdir()) if path.is_file()}
    uploads |= {f"provenance/{name}": path for name, path in provenance_files(params).items()}
    for definition in (Path("params.yaml"), Path("dvc.yaml")):
        if definition.is_file():
            uploads[definition.name] = folder / definition.name
            text = hide_secrets(definition.read_text(encoding="utf-8"))
            (folder / definition.name).write_text(text, encoding="utf-8")
    if Path("dvc.lock").is_file():
        # `publish` itself is left out: its entry would differ the second time.
        uploads["dvc.lock"] = folder / "dvc.lock"
        with uploads["dvc.lock"].open("w", encoding="utf-8") as stream:
            YAML(typ="safe").dump({"schema": "2.0", "stages": hide_secrets_in(locked_stages())}, stream)
    return uploads


def _upload(store: Store, run: Any, uploads: Mapping[str, Path]) -> None:
    """Upload the files and folders whose content is not in the run yet; a tag remembers their MD5s."""
    run_id = run.info.run_id
    before: dict[str, str] = json.loads(run.data.tags.get(_UPLOADED_TAG, "{}"))
    groups = groupby(sorted(uploads), lambda name: name.partition("/")[0])
    after = {group: "".join(tree_md5(uploads[name]) for name in names) for group, names in groups}
    after = {group: hashlib.md5(md5s.encode(), usedforsecurity=False).hexdigest() for group, md5s in after.items()}
    for name, path in uploads.items():
        group = name.partition("/")[0]
        if before.get(group) != after[group]:
            parent = Path(name).parent.as_posix()
            store.client.log_artifact(run_id, str(path), None if parent == "." else parent)
    if before != after:
        store.tag(run_id, {_UPLOADED_TAG: json.dumps(after, separators=(",", ":"))})


def _write(published: Path, store: Store, run_id: str, state: str, versions: list[RegisteredVersion]) -> None:
    published.mkdir(parents=True, exist_ok=True)
    document = {
        "tracking_uri": store.shown_uri,
        "experiment_id": store.experiment_id,
        "run_id": run_id,
        "state": state,
        "registered": [asdict(version) for version in versions],
    }
    (published / "publish.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """One line for whatever keeps the store from being used."""
    try:
        require_listener(uri, _REQUEST_TIMEOUT_S)
    except OSError as error:
        raise _unusable(uri, error) from error
    import_mlflow()
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    # ImportError: the driver of a data base (psycopg2) or of an object store (boto3) is not installed.
    except (MlflowException, RequestException, SQLAlchemyError, ImportError) as error:
        raise _unusable(uri, error) from error


def _unusable(uri: str, error: Exception) -> TrackingError:
    reason = hide_secrets(next(iter(str(error).splitlines()), type(error).__name__))
    return TrackingError(
        f"the MLflow store {hide_secrets(uri)} cannot be used: {reason}",
        "Correct publish.tracking_uri (or MLFLOW_TRACKING_URI) or start the server, then run `dvc repro publish`; "
        "nothing is lost until then.",
    )

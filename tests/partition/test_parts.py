import json
import random
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pocketbert.artifacts import Artifact, read_artifact
from pocketbert.data.tokenize import Batch, TextEncoder
from pocketbert.devices.inventory import Limits, LocalParams
from pocketbert.devices.targets import choose_targets
from pocketbert.errors import CheckpointError, DeviceError, ParamsError
from pocketbert.export.tflite import export_tflite
from pocketbert.params import ExportTfliteParams
from pocketbert.partition.cuts import Part, choose_parts, smallest_limit_bytes, smallest_limit_mb
from pocketbert.partition.divide import Division, divide, write_artifact_in_parts, write_parts
from pocketbert.partition.fit import fit_memory, local_memory_limit_mb
from pocketbert.partition.lifetime import Schedule
from pocketbert.partition.manifest import PartsManifest, read_manifest
from pocketbert.partition.model import read_graph
from pocketbert.partition.needs import MB, need_of
from pocketbert.partition.runtime import PartsRuntime
from pocketbert.runtimes.engines import open_runtime
from tests.export.trained import MAX_LENGTH, SEQUENCE_LENGTH, make_texts, trained_classifier

pytestmark = pytest.mark.xdist_group("partition")

EVERY = (
    *("bert", "distilbert", "mobilebert", "tflite-fp16", "tflite-dynamic_wi8_afp32", "tflite-dynamic_wi4_afp32"),
    "tflite-static_wi8_ai8",
)


def batch_of(artifact: Artifact, rows: int) -> Batch:
    return TextEncoder(artifact.folder).encode(make_texts(rows, seed=3)[0], MAX_LENGTH)


def whole_logits(artifact: Artifact, batch: Batch) -> np.ndarray:
    runtime = open_runtime(artifact)
    logits = runtime.run(batch)
    runtime.close()
    assert logits.std(axis=0).min() > 0.05  # it has learnt to tell rows apart
    return logits


def tight_limit(path: Path) -> float:
    schedule = Schedule(read_graph(path))
    whole = need_of(schedule, 0, len(schedule.steps)).total_bytes / MB
    return (smallest_limit_bytes(schedule) / MB + whole) / 2


@pytest.mark.parametrize("name", EVERY)
def test_logits_of_parts_are_those_of_the_whole_bit_by_bit(
    files: dict[str, Artifact], name: str, tmp_path: Path
) -> None:
    artifact = files[name]
    batch = batch_of(artifact, 6)
    schedule = Schedule(read_graph(artifact.model_path))
    manifest = write_parts(divide(artifact.model_path, smallest_limit_bytes(schedule) / MB), tmp_path / "parts")
    assert len(manifest.parts) > 1
    runtime = PartsRuntime(tmp_path / "parts/parts.json", threads=1)
    assert np.array_equal(runtime.run(batch), whole_logits(artifact, batch))
    assert re.fullmatch(r"litert \S+ in \d+ parts", runtime.name)


@settings(
    max_examples=12, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 9))
def test_logits_do_not_depend_on_where_the_cuts_are(bert: Artifact, tmp_path: Path, seed: int, count: int) -> None:
    schedule = Schedule(read_graph(bert.model_path))
    ends = sorted({*random.Random(seed).choices(range(1, len(schedule.steps)), k=count), len(schedule.steps)})
    parts = [Part(a, b, need_of(schedule, a, b)) for a, b in zip([0, *ends], ends, strict=False)]
    folder = tmp_path / f"{seed}-{count}"
    write_parts(Division(schedule, parts, 100.0), folder)
    batch = batch_of(bert, 6)
    assert np.array_equal(PartsRuntime(folder / "parts.json", threads=1).run(batch), whole_logits(bert, batch))


def test_what_is_handed_over_may_lie_in_mapped_files(bert: Artifact, tmp_path: Path) -> None:
    write_parts(divide(bert.model_path, tight_limit(bert.model_path)), tmp_path / "parts")
    batch = batch_of(bert, 9)
    mapped = PartsRuntime(tmp_path / "parts/parts.json", threads=1, mapped=True)
    held = mapped._hold((9, 3), "float32")
    assert not held.flags.owndata
    assert np.array_equal(mapped.run(batch), whole_logits(bert, batch))


def test_more_rows_than_the_limit_has_room_for_are_mapped(bert: Artifact, tmp_path: Path) -> None:
    write_parts(divide(bert.model_path, tight_limit(bert.model_path)), tmp_path / "parts")
    runtime = PartsRuntime(tmp_path / "parts/parts.json", threads=1)
    assert runtime._hold((1, 4), "float32").flags.owndata
    assert not runtime._hold((10**6, 4), "float32").flags.owndata


@pytest.mark.parametrize("name", EVERY)
def test_every_part_is_within_the_limit_and_none_is_superfluous(files: dict[str, Artifact], name: str) -> None:
    path = files[name].model_path
    limit = tight_limit(path)
    schedule = Schedule(read_graph(path))
    parts = choose_parts(schedule, limit)
    assert [p.start for p in parts[1:]] == [p.end for p in parts[:-1]]
    assert (parts[0].start, parts[-1].end) == (0, len(schedule.steps))
    assert max(p.need.total_bytes for p in parts) <= limit * MB
    for one, other in pairwise(parts):
        assert need_of(schedule, one.start, other.end).total_bytes > limit * MB


def test_the_cuts_are_the_best_of_all(bert: Artifact) -> None:
    """Against all divisions of a short graph, tried one by one."""
    graph = read_graph(bert.model_path)
    first = graph.operators[:14]
    schedule = Schedule(replace(graph, operators=first, outputs=dict.fromkeys(first[-1].outputs, "end")))
    count = len(schedule.steps)
    needs = {(a, b): need_of(schedule, a, b).total_bytes for a in range(count) for b in range(a + 1, count + 1)}
    divisions = []
    for mask in range(2 ** (count - 1)):
        bounds = [0, *(k + 1 for k in range(count - 1) if mask >> k & 1), count]
        pairs = list(pairwise(bounds))
        handed = sum(schedule.crossing_bytes(b) for _, b in pairs)
        divisions.append((max(needs[pair] for pair in pairs), len(pairs), handed))
    smallest = min(largest for largest, *_ in divisions)
    limits = [smallest, (smallest + needs[0, count]) // 2, needs[0, count]]
    for limit in limits:
        parts = choose_parts(schedule, limit / MB)
        best = min((number, handed) for largest, number, handed in divisions if largest <= limit)
        assert (len(parts), sum(schedule.crossing_bytes(p.end) for p in parts)) == best
    assert smallest_limit_bytes(schedule) == smallest
    assert smallest / MB <= smallest_limit_mb(schedule) < smallest / MB + 0.1


def test_what_does_not_fit_in_parts_either_names_the_smallest_limit(bert_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"largest single step needs (\d+\.\d) MB") as caught:
        divide(bert_path, 1.0)
    named = float(re.search(r"needs (\d+\.\d) MB", str(caught.value))[1])  # type: ignore[index]
    assert write_parts(divide(bert_path, named), tmp_path / "parts").largest_need_bytes <= named * MB
    with pytest.raises(ParamsError, match="not even in parts"):
        divide(bert_path, named - 0.11)


def test_an_artifact_that_does_not_fit_becomes_one_in_parts(bert: Artifact, tmp_path: Path) -> None:
    limit = tight_limit(bert.model_path)
    fitted = fit_memory(bert, limit, tmp_path / "cache")
    assert fitted.in_parts
    assert fitted.name == bert.name
    batch = batch_of(bert, 3)
    assert np.array_equal(open_runtime(fitted).run(batch), whole_logits(bert, batch))
    written = (fitted.folder / "parts.json").stat().st_mtime_ns
    assert (fit_memory(bert, limit, tmp_path / "cache").folder / "parts.json").stat().st_mtime_ns == written
    assert fit_memory(fitted, 1.0) is fitted
    with pytest.raises(DeviceError, match="is in parts, which run on the CPU"):
        open_runtime(fitted, accelerator="gpu")


def test_an_artifact_too_large_for_a_device_costs_its_own_row(bert: Artifact, files: dict[str, Artifact]) -> None:
    board = LocalParams(kind="local", limits=Limits(max_memory_mb=1))
    targets = choose_targets([bert], board)
    assert [target.artifact for target in targets] == [bert]
    assert "not even in parts" in str(targets[0].refusal)
    roomy = LocalParams(kind="local", limits=Limits(max_memory_mb=100))
    assert [target.refusal for target in choose_targets(list(files.values()), roomy)] == [None] * len(files)


def test_tables_that_the_host_looks_up_go_with_the_parts(bert: Artifact, tmp_path: Path) -> None:
    params = ExportTfliteParams(sequence_length=SEQUENCE_LENGTH, profile="embeddings")
    export_tflite(params, trained_classifier("bert"), tmp_path / "whole")
    whole = read_artifact(tmp_path / "whole")
    fitted = fit_memory(whole, tight_limit(whole.model_path), tmp_path / "cache")
    assert fitted.in_parts
    batch = batch_of(whole, 4)
    assert np.array_equal(open_runtime(fitted).run(batch), whole_logits(whole, batch))


def test_two_processes_may_cut_the_same(bert: Artifact, tmp_path: Path) -> None:
    division = divide(bert.model_path, tight_limit(bert.model_path))
    first, second = (write_artifact_in_parts(bert, division, tmp_path / "parts") for _ in range(2))
    assert first == second
    assert [p.name for p in tmp_path.iterdir()] == ["parts"]


def test_what_fits_stays_as_it_is(bert: Artifact, tmp_path: Path) -> None:
    assert fit_memory(bert, None, tmp_path / "cache") is bert
    assert fit_memory(bert, 500, tmp_path / "cache") is bert
    assert not (tmp_path / "cache").exists()


def test_a_lost_or_cut_part_is_told(bert: Artifact, tmp_path: Path) -> None:
    fitted = fit_memory(bert, tight_limit(bert.model_path), tmp_path / "cache")
    part = read_manifest(fitted.model_path).parts[0].file
    copy = Path(shutil.copytree(fitted.folder, tmp_path / "copy"))
    (copy / part).write_bytes((copy / part).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"{part} has \d+ bytes instead of"):
        open_runtime(copy)
    (copy / part).unlink()
    with pytest.raises(CheckpointError, match=f"{part} is missing"):
        open_runtime(copy)
    (copy / "parts.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is no list of parts"):
        open_runtime(read_artifact(copy))


def test_the_limit_of_this_machine_is_that_of_its_device(tmp_path: Path) -> None:
    inventory = tmp_path / "devices.yaml"
    assert local_memory_limit_mb(inventory) is None
    inventory.write_text("devices: {local: {kind: local}}\n")
    assert local_memory_limit_mb(inventory) is None
    inventory.write_text("devices: {local: {kind: local, limits: {max_memory_mb: 48}}}\n")
    assert local_memory_limit_mb(inventory) == 48


def test_the_manifest_says_what_was_cut(bert: Artifact, tmp_path: Path) -> None:
    limit = tight_limit(bert.model_path)
    manifest = write_parts(divide(bert.model_path, limit), tmp_path / "parts")
    assert PartsManifest.model_validate(json.loads((tmp_path / "parts/parts.json").read_text())) == manifest
    assert manifest.source_md5 == bert.md5()
    assert manifest.max_memory_mb == limit
    assert manifest.size_bytes == sum(f.stat().st_size for f in (tmp_path / "parts").glob("*.tflite"))
    names = {name for part in manifest.parts for name in part.inputs}
    assert {"input_ids", "attention_mask"} <= names

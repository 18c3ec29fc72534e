"""The inventory, the local device, what Linux tells, and the statistics of latencies."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketbert.devices.agent.intervals import median_interval
from pocketbert.devices.agent.probe import read_facts
from pocketbert.devices.agent.telemetry import EnergyMeter, Sampler, Thermometer, process_memory_bytes
from pocketbert.devices.base import Answer
from pocketbert.devices.inventory import find_device
from pocketbert.devices.rows import count_operators, prove
from pocketbert.devices.statistics import summarise_latencies
from pocketbert.errors import ParamsError, ProofError

rounds = st.lists(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=12), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("devices: {phone: {kind: local}}", "has no device 'local'"),
        ("devices: {}", "none is declared"),
        ("devices: {local: {kind: teleport}}", "Input tag 'teleport'"),
        ("devices: {local: {kind: local, host: x}}", "devices.local.host"),
        ("devices: {local: {}}", "devices.local needs the key 'kind'"),
        ("devices: [local]", "section of keys"),
        ("devices: {local: {kind: local}", "not valid YAML"),
    ],
)
def test_an_inventory_that_cannot_be_used(project: Path, text: str, words: str) -> None:
    Path("devices.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ParamsError) as caught:
        find_device("local")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError, match=r"devices\.yaml does not exist"):
        find_device("local")


def write_files(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n", encoding="utf-8")


def test_a_silent_machine_reads_unknown_never_zero(tmp_path: Path) -> None:
    facts = read_facts(tmp_path, tmp_path)
    for name in ("governor", "memory_total_bytes", "memory_available_bytes", "load_average_1min", "gpu_model"):
        assert facts[name] is None
    assert set(Sampler(tmp_path).sources().values()) == {None}
    assert set(Sampler(tmp_path).sample(1)) == {"monotonic_s"}
    assert Thermometer.find(tmp_path).read_c() is None
    assert process_memory_bytes("VmHWM", tmp_path) is None
    meter = EnergyMeter.find(tmp_path)
    meter.start()
    assert meter.mean_mw(1.0) is None


def test_the_processors_own_thermal_zone_is_chosen(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone"
    write_files(
        tmp_path,
        {f"{zone}0/type": "battery", f"{zone}0/temp": "31000", f"{zone}1/type": "x86_pkg_temp",
         f"{zone}1/temp": "54500", f"{zone}2/type": "cpu-dead", f"{zone}2/temp": "-274000"},
    )  # fmt: skip
    thermometer = Thermometer.find(tmp_path)
    assert thermometer.read_c() == 54.5
    (tmp_path / f"{zone}1/temp").write_text("0", encoding="utf-8")
    assert thermometer.read_c() is None


def test_energy_counters_are_summed_and_survive_a_wrap(tmp_path: Path) -> None:
    rapl = "sys/class/powercap/intel-rapl:"
    write_files(
        tmp_path,
        {f"{rapl}0/name": "package-0", f"{rapl}0/energy_uj": "1000000", f"{rapl}0/max_energy_range_uj": "262143328850",
         f"{rapl}1/name": "package-1", f"{rapl}1/energy_uj": "262143328000",
         f"{rapl}1/max_energy_range_uj": "262143328850",
         f"{rapl}0:0/name": "core", f"{rapl}0:0/energy_uj": "5"},
    )  # fmt: skip
    meter = EnergyMeter.find(tmp_path)
    assert len(meter.counters) == 2
    meter.start()
    write_files(tmp_path, {f"{rapl}0/energy_uj": "7000000", f"{rapl}1/energy_uj": "3999150"})
    # 6 J and 4 J (of which 850 uJ before the wrap) in 2 s are 5 W.
    assert meter.mean_mw(2.0) == pytest.approx(5000.0)


def test_this_process_has_a_peak_that_is_at_least_what_it_uses() -> None:
    now, peak = process_memory_bytes("VmRSS"), process_memory_bytes("VmHWM")
    assert now is not None
    assert peak is not None
    assert 1e6 < now <= peak


@given(rounds, st.integers(0, 2**32 - 1))
def test_the_interval_holds_the_median_and_repeats_by_seed(values: list[list[float]], seed: int) -> None:
    pooled = [v for r in values for v in r]
    low, high = median_interval(values, seed, resamples=50)
    assert min(pooled) <= low <= float(np.median(pooled)) <= high <= max(pooled)
    assert (low, high) == median_interval(values, seed, resamples=50)


def test_rounds_that_differ_widen_the_interval() -> None:
    runs = np.random.default_rng(13).normal(10, 0.1, size=120)
    same = median_interval([runs[:40], runs[40:80], runs[80:]], 13)
    apart = median_interval([runs[:40], runs[40:80] + 2, runs[80:] + 4], 13)
    assert apart[1] - apart[0] > 5 * (same[1] - same[0])


def test_summary_pools_all_rounds() -> None:
    summary = summarise_latencies([[1.0, 2.0, 3.0], [4.0, 5.0]], 13)
    assert (summary.p50_ms, summary.p90_ms) == (3.0, pytest.approx(4.6))


def logits(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(16, 5)).astype(np.float32)


def test_the_worst_round_is_what_is_reported() -> None:
    reference = logits(0)
    proof = prove(reference, [reference, reference + 0.01, reference + 0.002])
    assert proof.max_abs_diff == pytest.approx(0.01, rel=1e-3)


def test_another_model_and_a_missing_reference_prove_nothing() -> None:
    with pytest.raises(ProofError, match="agrees with torch on"):
        prove(logits(0), [logits(1)])
    with pytest.raises(ProofError, match="no logits to compare with"):
        prove(None, [logits(0)])


def test_an_answer_refuses_unknown_keys() -> None:
    with pytest.raises(ValueError, match="extra"):
        Answer.model_validate({"runtime": "x", "latency": 1})


def test_operators_of_a_tflite_file_are_counted(tmp_path: Path) -> None:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    from pocketbert.artifacts import Artifact, ArtifactCard

    model = schema.ModelT()
    model.version, model.subgraphs = 3, [schema.SubGraphT(), schema.SubGraphT()]
    model.subgraphs[0].operators = [schema.OperatorT() for _ in range(5)]
    model.subgraphs[1].operators = [schema.OperatorT() for _ in range(2)]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    (tmp_path / "model.tflite").write_bytes(bytes(builder.Output()))
    card = ArtifactCard(name="tflite-fp32", format="tflite", model_file="model.tflite", max_length=16)
    assert count_operators(Artifact(folder=tmp_path, card=card)) == 7
    assert count_operators(Artifact(folder=tmp_path, card=card.model_copy(update={"format": "onnx"}))) is None
    # A damaged file fails its own row by its runtime's words, and not the whole device by ours.
    (tmp_path / "model.tflite").write_bytes(b"{" * 200)
    assert count_operators(Artifact(folder=tmp_path, card=card)) is None
